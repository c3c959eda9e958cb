"""Spectral marginals through the binaries: the chain, other starts, several hosts."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import programs
import pytest

from flowqcd.io import metrics

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ["--config.marginal=spectral", "--config.theory.num_flavours=0", "--config.coupling.layers=4"]


def _command(binary, folder, *flags):
  return [sys.executable, "-m", f"experiments.{binary}", "--preset=smoke", f"--config.output={folder}", *FLAGS, *flags]


@pytest.fixture(scope="module")
def environment():
  return lambda devices: os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": programs.xla_flags(devices, given="")}


def _run(environment, *command):
  return subprocess.run(command, env=environment(4), cwd=ROOT, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def finished(environment, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "spectral"
  more = ["--config.training.num_steps=40", "--config.training.checkpoint_every=40", "--config.training.batch=64",
          "--config.training.evaluate_every=40", "--config.optimizer.epsilon=1e-5", "--config.sampling.num_samples=2048",
          "--config.sampling.batch=1024", "--config.hmc.trajectories=1000", "--config.hmc.thermalisation=100",
          "--config.hmc.tau=1.0", "--config.hmc.steps=10"]  # fmt: skip
  result = _run(environment, *_command("reproduce", folder, *more))
  assert result.returncode == 0, result.stderr
  return folder


def test_the_chain_gives_the_exact_plaquette_and_ln_z(finished):
  n = json.loads((finished / "summary.json").read_text())
  assert n["log_z_relative_to"] == "Haar" and n["num_flow_samples"] == 2048
  assert abs(n["log_z"] - n["log_z_exact"]) < 4 * n["log_z_err"]
  for which in ("flow", "hmc"):
    assert abs(n[f"mean_plaquette_{which}"] - n["mean_plaquette_exact"]) < 4 * n[f"mean_plaquette_{which}_err"]
  text = (finished / "report.md").read_text()
  assert f"plaquette {n['mean_plaquette_exact']:.6f}" in text and "training.png" in text
  rows = metrics.read(finished / "training.jsonl")
  assert (np.diff(rows["cpu_seconds"]) > 0).all()


def test_another_volume_starts_from_these_parameters(finished, environment, tmp_path):
  start = f"--config.training.start_from={finished}"
  flags = [start, "--config.theory.lattice=8x4", "--config.training.num_steps=0", "--config.sampling.num_haar=0"]
  result = _run(environment, *_command("sample", tmp_path / "a", *flags))
  assert result.returncode == 0, result.stderr
  wrong = _run(environment, *_command("sample", tmp_path / "b", start, "--config.coupling.layers=8"))
  assert wrong.returncode == 2 and "is of another model" in wrong.stderr
  missing = _run(environment, *_command("sample", tmp_path / "c", "--config.training.start_from=nowhere"))
  assert missing.returncode == 2 and "nowhere/checkpoints is no folder" in missing.stderr


def test_two_hosts_train_like_one(environment, tmp_path):
  flags = ["--config.training.num_steps=4", "--config.training.batch=8"]
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"--coordinator=localhost:{free.getsockname()[1]}"
  processes = [
    subprocess.Popen(
      [*_command("train_marginal", tmp_path / "two", *flags), address, "--num_processes=2", f"--process_id={i}"],
      env=environment(2), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    for i in range(2)
  ]  # fmt: skip
  for process in processes:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
  assert _run(environment, *_command("train_marginal", tmp_path / "one", *flags)).returncode == 0
  two, one = (metrics.read(tmp_path / name / "training.jsonl") for name in ("two", "one"))
  np.testing.assert_array_equal(two["step"], [1, 2, 3, 4])
  np.testing.assert_allclose(two["gradient_norm"], one["gradient_norm"], rtol=1e-10)
  for name in ("loss", "ess", "exact_loss"):
    np.testing.assert_allclose(two[name], one[name], rtol=1e-10)


def test_stages_that_run_on_one_host_say_so(environment, tmp_path):
  result = _run(environment, *_command("sample", tmp_path / "a"), "--num_processes=2")
  assert result.returncode == 2 and "need --coordinator" in result.stderr


def test_masks_that_do_not_fit_are_named(environment, tmp_path):
  result = _run(environment, *_command("sample", tmp_path / "a", "--config.theory.lattice=6x4"))
  assert result.returncode == 2 and "extent 6 of direction 0" in result.stderr
  picture = tmp_path / "masks.png"
  drawn = _run(environment, sys.executable, "docs/draw_masks.py", f"--config.picture={picture}")
  assert drawn.returncode == 0 and picture.read_bytes()[:4] == b"\x89PNG"
