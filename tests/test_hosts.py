"""Two processes of one run, as on two hosts: what they share, and that one that fails takes the other with it."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import programs
import pytest

from flowqcd.io import ensembles

ROOT = pathlib.Path(__file__).parents[1]
_TOGETHER = """
import dataclasses, json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from flowqcd import distributed, experiment, hosts, presets
address, process, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
hosts.initialise_hosts(address, 2, process)

from flowqcd.models import priors
from flowqcd.stages import fitting
from flowqcd.training import loop, objectives, optimizer

found = {"on_first": hosts.on_first(lambda: 7)}
found["from_first"] = np.asarray(hosts.from_first({"a": np.full(2, process + 3)})["a"]).tolist()


def fails():
  raise OSError("no disk")

try:
  hosts.on_first(fails)
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
  if process == 0:
    own.mkdir(exist_ok=True)
  return np.asarray(fitting.run(task, own, start)).tolist()

value = {"a": [np.arange(3), ("text", None)], "b": np.full((2, 0), 1j), "c": np.float32(2.5), "d": np.int64(2**40)}
value = hosts.shared(lambda: value)
found["shared"] = [value["a"][0].tolist(), value["a"][1], value["b"].shape, str(value["b"].dtype), float(value["c"])]
found["shared"] += [int(value["d"]), type(value["a"][1]).__name__]
found["alone"] = hosts.on_first(lambda: [hosts.is_alone(), hosts.shared(lambda: 5)])
found["summed"] = hosts.summed(process + 1.5)

square = distributed.parallel_map(lambda a, x: {"y": a * x**2}, 2, 1)
found["squares"] = square(3.0, np.arange(7.0))["y"].tolist()
own = dataclasses.replace(run, folder=folder / f"own-store{process}")
hosts.on_first(lambda: own.folder.mkdir())
store = own.store("flow")
for part in range(2):
  store.append({"x": np.arange(3.0) + part, "u": np.full((3, 2), part * 1j)}, {"cost": 1.5})
found["store"] = [store.read("x").tolist(), store.names, len(store), store.part_lengths("u")]
found["costs"] = store.attributes("cost").tolist()
own.write("found.json", {"a": 1})
found["record"] = [own.record("found.json"), own.record("not.json")]
try:
  store.append({"x": np.zeros(3)})
except ValueError as error:
  found["bad part"] = str(error)
found["own store"] = own.folder.exists()

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


def test_what_is_read_on_the_first_process_is_shared(found):
  wanted = [[0, 1, 2], ["text", None], [2, 0], "complex128", 2.5, 2**40, "tuple"]
  assert [x["shared"] for x in found] == [wanted, wanted]
  assert found[0]["alone"] == [True, 5] and found[1]["alone"] is None
  assert [x["summed"] for x in found] == [4.0, 4.0]


def test_items_are_spread_and_all_results_are_everywhere(found):
  assert [x["squares"] for x in found] == [[3.0 * i**2 for i in range(7)]] * 2


def test_ensembles_and_records_are_on_the_first_process_disk(found):
  wanted = [[0, 1, 2, 1, 2, 3], ["u", "x"], 6, [3, 3]]
  assert [x["store"] for x in found] == [wanted, wanted]
  assert [x["costs"] for x in found] == [[1.5, 1.5]] * 2
  assert [x["record"] for x in found] == [[{"a": 1}, None]] * 2
  assert "has the columns ['u', 'x'], not ['x']" in found[0]["bad part"]
  assert found[1]["bad part"] == "the first process has ended with an error, which it names"
  assert [x["own store"] for x in found] == [True, False]


def test_logs_are_of_all_hosts(found):
  assert found[0]["log_w"] == found[1]["log_w"]
  assert len(found[0]["log_w"]) == 8 and len(set(found[0]["log_w"])) == 8


_STOPPED = """
import json, os, pathlib, signal, sys, time
import jax, jax.numpy as jnp, numpy as np
from flowqcd import hosts
address, process, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
hosts.initialise_hosts(address, 2, process)

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


_BROKEN = """
import dataclasses, sys
from flowqcd import hosts
from flowqcd.runs import flags
address, process, folder = sys.argv[1:]

@dataclasses.dataclass(frozen=True)
class Plan:
  number: int = 0

def main(plan):
  hosts.from_first(0)  # They are connected from here on.
  if process == "1":
    raise KeyError("a mistake of the program's own")
  hosts.from_first(0)

several = [f"--coordinator={address}", "--num_processes=2", f"--process_id={process}"]
flags.run(main, flags.Presets({"all": Plan()}, "all"), ["program", *several], prefix="", doc="A program.")
"""


def test_an_error_nobody_expected_ends_all_processes_soon(tmp_path):
  first, second = _start(tmp_path, 1, _BROKEN)
  text, _ = second.communicate(timeout=120)
  assert second.returncode == 1 and 'KeyError: "a mistake of the program\'s own"' in text
  text, _ = first.communicate(timeout=30)
  assert first.returncode == 2, text[-2000:]
  assert "error: process 0 of 2: " in text and "its connection to another process is lost" in text


_SMALL = """
  training.num_steps=2 training.batch=8 training.num_evaluate=8 conditional_training.steps=1,1
  conditional_training.batches=8,8 conditional_training.rates=1e-3,1e-3 conditional_training.num_evaluate=8
  conditional.draws=4 sampling.batch=20 sampling.num_haar=64 hmc.streams=4 hmc.thin=4 hmc.thermalisation=20
  measurement.flow_time=0.1 compilation=quick
""".split()


def _run(binary, folder, processes, devices, *settings):
  """The processes of a run, each with an output folder of its own."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  flags = [f"--config.{x}" for x in (*_SMALL, *settings)]
  command = [sys.executable, "-m", f"experiments.{binary}", "--preset=smoke", *flags]
  several = lambda i: [f"--coordinator={address}", f"--num_processes={processes}", f"--process_id={i}"]
  environment = os.environ | {"XLA_FLAGS": programs.xla_flags(devices, given="")}
  return [
    subprocess.Popen(
      [*command, f"--config.output={folder}{i or ''}", *(several(i) if processes > 1 else [])],
      env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    for i in range(processes)
  ]  # fmt: skip


def _columns(folder):
  found = {}
  for name in ("flow", "flow-measured", "hmc", "hmc-measured"):
    store = ensembles.Ensemble.open(folder / name)
    found |= {f"{name}/{column}": store.read(column) for column in store.names}
  return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp("alone") / "run"
  for process in _run("reproduce", folder, 1, 1, "sampling.num_samples=40", "hmc.trajectories=80"):
    text, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, text[-3000:]
  return _columns(folder)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [[(1, 4)], [(2, 2)], [(4, 1)], [(2, 1), (1, 1)], [(1, 1), (2, 2)]])
def test_any_number_of_processes_and_devices_gives_the_same_numbers(alone, tmp_path, steps):
  """Also where half of the samples and trajectories come from so many, and the rest from others."""
  for i, (number, each) in enumerate(steps):
    share = (i + 1) / len(steps)
    sizes = f"sampling.num_samples={int(40 * share)}", f"hmc.trajectories={int(80 * share)}"
    for process in _run("reproduce", tmp_path / "run", number, each, *sizes):
      text, _ = process.communicate(timeout=1800)
      assert process.returncode == 0, text[-3000:]
  assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
  found = _columns(tmp_path / "run")
  assert found.keys() == alone.keys()
  for name, x in found.items():
    # HMC and the measured flow compute in single precision; draws have a solver's tolerance.
    np.testing.assert_allclose(x, alone[name], atol=1e-4, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("number, each", [(1, 4), (2, 2)])
def test_lattices_are_split_over_devices_and_processes(alone, tmp_path, number, each):
  settings = "sampling.num_samples=40", "hmc.trajectories=80", "lattice_devices=4"
  for process in _run("reproduce", tmp_path / "run", number, each, *settings):
    text, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, text[-3000:]
  found = _columns(tmp_path / "run")
  for name, x in alone.items():
    np.testing.assert_allclose(found[name], x, atol=1e-4, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_a_process_that_dies_ends_the_others_with_a_line(tmp_path, dead):
  processes = _run("run_hmc", tmp_path / "run", 2, 1, "hmc.trajectories=400000")
  parts, deadline = tmp_path / "run" / "hmc", time.monotonic() + 600
  while len(list(parts.glob("part-*.h5"))) < 3:
    assert time.monotonic() < deadline and processes[1 - dead].poll() is None
    time.sleep(0.2)
  processes[dead].send_signal(signal.SIGKILL)
  text, _ = processes[1 - dead].communicate(timeout=60)
  assert processes[1 - dead].returncode == 2
  assert f"error: process {1 - dead} of 2: " in text.splitlines()[-1]
  assert text.endswith("another process is lost, which has ended; the same command goes on from what is stored\n")
  processes[dead].communicate()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_a_chain_everywhere(tmp_path):
  processes = _run("run_hmc", tmp_path / "run", 2, 1, "hmc.trajectories=400000")
  parts, deadline = tmp_path / "run" / "hmc", time.monotonic() + 600
  while len(list(parts.glob("part-*.h5"))) < 3:
    assert time.monotonic() < deadline and processes[0].poll() is None
    time.sleep(0.2)
  processes[1].send_signal(signal.SIGTERM)
  for process in processes:
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "stopped by a signal; the same command goes on" in text.splitlines()[-1]


_ONE = """
import os, signal, sys, time
from flowqcd import hosts
hosts.initialise_hosts(sys.argv[1], 1, 0)
from flowqcd.runs import stopping
stopping.listen()
os.kill(os.getpid(), signal.SIGUSR1)
for _ in range(300):
  if stopping.requested():
    sys.exit(75)
  time.sleep(0.1)
"""


def test_a_single_process_that_has_joined_stops_too():
  """As a job of one task on a cluster, with all GPUs of a node."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-c", _ONE, address], env=environment, cwd=ROOT, timeout=120)
  assert done.returncode == 75
