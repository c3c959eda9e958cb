"""Two processes of one run, as on two hosts: what they share, and that one that fails takes the other with it."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import programs
import pytest

ROOT = pathlib.Path(__file__).parents[1]
_TOGETHER = """
import dataclasses, json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from flowqcd import distributed, experiment, presets
address, process, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
distributed.initialise_hosts(address, 2, process)

from flowqcd.models import priors
from flowqcd.stages import fitting
from flowqcd.training import loop, objectives, optimizer

found = {"on_first": distributed.on_first(lambda: 7)}
found["from_first"] = np.asarray(distributed.from_first({"a": np.full(2, process + 3)})["a"]).tolist()


def fails():
  raise OSError("no disk")

try:
  distributed.on_first(fails)
except Exception as error:
  found["failed"] = [type(error).__name__, str(error)]

smoke = dataclasses.replace(presets.PRESETS["smoke"], output=str(folder / f"run{process}"))
run = experiment.claim(smoke)
found["claimed"] = run.folder.exists()
(folder / "run0" / "hmc").mkdir(exist_ok=True)
(folder / "run0" / "hmc" / "part-000000.h5").touch()
try:
  experiment.claim(dataclasses.replace(smoke, seed=1))
except ValueError as error:
  found["refused"] = [type(error).__name__, str(error)]


def loss(params, key):
  value = jnp.sum((params - jax.random.normal(key, params.shape)) ** 2)
  return value, loop.Metrics(value, 0.0, True)

transformation = optimizer.make(optimizer.Config(learning_rate=0.1, warmup=0))
start = loop.initial_state(jax.random.key(1), jnp.ones(3), transformation)
step = loop.make_step(objectives.of_loss(loss), transformation, 2)


def trained(steps):
  task = fitting.Task(
    "training", "checkpoints", "training.num_steps", step, (fitting.Phase(steps, 8),), lambda p: np.zeros(2), 9, 2, 3, 5
  )
  # Each process has a disk of its own, and only the first one's has checkpoints.
  own = folder / f"own{process}"
  own.mkdir(exist_ok=True)
  return np.asarray(fitting.run(task, own, start)).tolist()

found["half"], found["params"] = trained(2), trained(4)
found["log_w"] = np.asarray(step(start, 8)[1].log_w).tolist()
(folder / f"{process}.json").write_text(json.dumps(found))
"""


def _start(folder, devices, script=_TOGETHER):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": programs.xla_flags(devices, given="")}
  return [
    subprocess.Popen(
      [sys.executable, "-c", script, address, str(i), str(folder)],
      env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    for i in range(2)
  ]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hosts")
  for process in _start(folder, 2):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text[-3000:]
  return [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]


def test_what_the_first_process_has_the_others_get(found):
  assert [x["on_first"] for x in found] == [7, None]
  assert [x["from_first"] for x in found] == [[3, 3], [3, 3]]


def test_where_the_first_process_fails_all_do(found):
  assert found[0]["failed"] == ["OSError", "no disk"]
  assert found[1]["failed"] == ["FirstProcessError", "the first process has ended with an error, which it names"]


def test_the_first_process_alone_claims_a_folder_and_all_are_refused_together(found):
  assert [x["claimed"] for x in found] == [True, False]
  assert found[0]["refused"][0] == "ValueError" and "holds hmc of other settings (seed" in found[0]["refused"][1]
  assert found[1]["refused"][0] == "FirstProcessError"


def test_processes_that_see_other_checkpoints_train_on_from_the_first_ones(found):
  assert found[0]["half"] == found[1]["half"] and found[0]["params"] == found[1]["params"]
  assert found[0]["params"] != found[0]["half"]


def test_logs_are_of_all_hosts(found):
  assert found[0]["log_w"] == found[1]["log_w"]
  assert len(found[0]["log_w"]) == 8 and len(set(found[0]["log_w"])) == 8


_STOPPED = """
import json, os, pathlib, signal, sys, time
import jax, jax.numpy as jnp, numpy as np
from flowqcd import distributed
address, process, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
distributed.initialise_hosts(address, 2, process)

from flowqcd.io import checkpoint
from flowqcd.runs import stopping
from flowqcd.stages import fitting
from flowqcd.training import loop, objectives, optimizer

stopping.listen()
transformation = optimizer.make(optimizer.Config(learning_rate=0.1, warmup=0))
start = loop.initial_state(jax.random.key(1), jnp.ones(3), transformation)
loss = lambda p, key: (jnp.sum(p**2) / 2, loop.Metrics(jnp.sum(p), 0.0, True))
taken = loop.make_step(objectives.of_loss(loss), transformation, 2)


def step(state, batch):
  if int(state.step) == 3 and process == 1:
    os.kill(os.getpid(), signal.SIGUSR1)
  time.sleep(0.05)
  return taken(state, batch)

task = fitting.Task(
  "training", "checkpoints", "training.num_steps", step, (fitting.Phase(400, 8),), lambda p: np.zeros(2), 900, 900, 3, 5
)
found = {}
try:
  fitting.run(task, folder, start)
except stopping.Stopped as error:
  found["stopped"] = str(error)
if process == 0:
  found["saved"] = checkpoint.Checkpointer(folder / "checkpoints", read_only=True).latest_step()
(folder / f"{process}.json").write_text(json.dumps(found))
"""


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
  for process in _start(tmp_path, 1, _STOPPED):
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text[-3000:]
  first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
  assert first["stopped"] == second["stopped"] == f"stopped by a signal after step {first['saved']}"
  assert 3 < first["saved"] < 400
