"""Signals of a cluster: what is in flight is finished and stored, and the run goes on later as if nothing had been."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.io import checkpoint, ensembles
from flowqcd.runs import progress, stopping
from flowqcd.stages import fitting
from flowqcd.training import loop

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def listening():
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
  stopping.listen()
  yield
  stopping._received.clear()
  for number, handler in before.items():
    signal.signal(number, handler)


def _train(folder, stop_at=0, number=signal.SIGTERM):
  def step(state, batch):
    if stop_at == int(state.step) + 1:
      os.kill(os.getpid(), number)
    return state._replace(params=state.params * 1.5, step=state.step + 1), loop.Metrics(np.zeros(batch), 1.0, True)

  key, zero = jax.random.key_data(jax.random.key(0)), jnp.zeros((), jnp.int32)
  start = loop.State(zero, key, jnp.ones(2), (), zero, jnp.zeros(()))
  phases = (fitting.Phase(7, 2),)
  task = fitting.Task("training", "checkpoints", "training.num_steps", step, phases, lambda p: np.zeros(3), 9, 9, 3, 5)
  folder.mkdir(exist_ok=True)
  return np.asarray(fitting.run(task, folder, start))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_training_is_stored_after_the_step_in_flight(listening, tmp_path, number):
  with pytest.raises(stopping.Stopped, match="stopped by a signal after step 3"):
    _train(tmp_path / "run", 3, number)
  assert checkpoint.Checkpointer(tmp_path / "run" / "checkpoints", read_only=True).latest_step() == 3
  stopping._received.clear()
  np.testing.assert_array_equal(_train(tmp_path / "run"), _train(tmp_path / "once"))


def test_a_second_signal_finds_nobody_listening(listening):
  os.kill(os.getpid(), signal.SIGUSR1)
  assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
  with pytest.raises(stopping.Stopped, match="stopped by SIGUSR1"):
    progress.Progress("parts", 3).update(1)


def test_a_chain_ends_with_its_own_status_after_a_whole_part(tmp_path):
  command = [
    sys.executable, "-m", "experiments.run_hmc", "--preset=smoke", f"--config.output={tmp_path}/run",
    "--config.theory.num_flavours=0", "--config.hmc.trajectories=500000",
  ]  # fmt: skip
  process = subprocess.Popen(
    command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  for line in process.stderr:
    if "hmc steps" in line:
      break
  process.send_signal(signal.SIGTERM)
  _, rest = process.communicate(timeout=100)
  assert process.returncode == stopping.STATUS == 75
  assert rest.strip().splitlines()[-1] == "error: stopped by SIGTERM; the same command goes on from what is stored"
  assert set(ensembles.Ensemble.open(tmp_path / "run" / "hmc").states().values()) == {"ok"}


_PROGRAM = """
import dataclasses, time
from flowqcd.runs import flags

@dataclasses.dataclass(frozen=True)
class Plan:
  seed: int = 0

def main(plan):
  '''It stores nothing.'''
  print("at work", flush=True)
  time.sleep(60)

flags.run(main, flags.Presets({"all": Plan()}, "all"), ["program"], prefix="")
"""


def test_a_program_that_could_not_go_on_ends_at_once():
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  process = subprocess.Popen(
    [sys.executable, "-c", _PROGRAM], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "at work\n"
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=20) == -signal.SIGTERM
