"""The whole chain on a small theory: its numbers, its files, kills, and folders of other configurations."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from programs import slow

from flowqcd import commands, presets
from flowqcd.io import ensembles
from flowqcd.stages import report

ROOT = pathlib.Path(__file__).parents[2]
KEYS = """ess_marginal ess_haar num_flow_samples num_hmc_trajectories hmc_acceptance plaquette_flow plaquette_hmc
polyakov_flow polyakov_hmc pion_flow pion_hmc q2_flow q2_hmc log_z chi2_residuals chi2_num_bins cpu_seconds_flow
cpu_seconds_hmc cpu_seconds_per_effective_sample_flow cpu_seconds_per_effective_sample_hmc plaquette_flow_err
plaquette_hmc_err polyakov_flow_err polyakov_hmc_err pion_flow_err pion_hmc_err q2_flow_err q2_hmc_err log_z_err""".split()


@pytest.fixture(scope="module")
def environment():
  """As this process: without optimisation, four devices, compiled programs kept in the tree."""
  return os.environ | {"PYTHONPATH": str(ROOT)}


def _command(binary, folder, *flags):
  return [
    sys.executable,
    "-m",
    f"experiments.{binary}",
    "--preset=smoke",
    f"--config.output={folder}",
    *flags,
  ]


def _run(environment, binary, folder, *flags):
  return subprocess.run(
    _command(binary, folder, *flags),
    env=environment,
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=400,
  )


def _config(folder):
  return dataclasses.replace(presets.PRESETS["smoke"], output=str(folder))


@pytest.fixture(scope="module")
def finished(environment, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "smoke"
  result = _run(environment, "reproduce", folder)
  assert result.returncode == 0, result.stderr
  return folder


def test_the_summary_has_all_numbers_and_they_agree(finished):
  summary = json.loads((finished / "summary.json").read_text())
  assert not [key for key in KEYS if summary.get(key) is None]
  assert summary["ess_marginal"] > 0.85 and summary["ess_haar"] < 0.3
  assert summary["weight_warnings"] == summary["metropolis_warnings"] == []
  assert summary["num_flow_samples"] == 256 and summary["num_hmc_trajectories"] == 2400
  assert abs(summary["hmc_exp_minus_dh"] - 1) < 4 * summary["hmc_exp_minus_dh_err"]
  assert summary["ess_joint_by_draws"]["8"] == pytest.approx(summary["ess_joint"], rel=1e-12)
  assert 0.3 < summary["ess_joint_by_draws"]["1"] < summary["ess_joint"] < summary["ess_joint_exact_det"]
  assert summary["ess_joint_exact_det"] == summary["ess_marginal"] and summary["num_pf_draws"] == 8
  assert abs(summary["log_mean_determinant_ratio"]) < 4 * summary["log_mean_determinant_ratio_err"]
  for name in ("plaquette", "polyakov", "pion", "q2"):
    values = [np.asarray(summary[f"{name}_{k}"]) for k in ("flow", "hmc", "flow_err", "hmc_err")]
    assert (np.abs(values[0] - values[1]) < 4.5 * np.hypot(values[2], values[3])).all(), name


def test_the_report_shows_what_was_found(finished):
  text = (finished / "report.md").read_text()
  summary = json.loads((finished / "summary.json").read_text())
  assert report.number(summary["plaquette_hmc"], summary["plaquette_hmc_err"]) in text
  for name in ("figure2", "figure3", "log_weights", "pion", "draws", "training", "conditional"):
    assert f"{name}.png" in text
    assert (finished / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_finished_run_is_found_finished(finished):
  parts = sorted(finished.rglob("part-*.h5"))
  times = [p.stat().st_mtime_ns for p in parts]
  before = (finished / "summary.json").read_text()
  commands.reproduce(_config(finished))
  assert [p.stat().st_mtime_ns for p in parts] == times
  assert (finished / "summary.json").read_text() == before


def test_another_configuration_is_refused_by_name(finished):
  config = _config(finished)
  with pytest.raises(ValueError, match="theory.beta: 1.0 there, 1.5 here"):
    commands.reproduce(dataclasses.replace(config, theory=dataclasses.replace(config.theory, beta=1.5)))


def test_histograms_can_be_binned_anew(finished, tmp_path):
  config = _config(shutil.copytree(finished, tmp_path / "copy"))
  before = json.loads((finished / "summary.json").read_text())
  commands.make_figures(dataclasses.replace(config, measurement=dataclasses.replace(config.measurement, bins=6)))
  found = json.loads((tmp_path / "copy" / "summary.json").read_text())
  assert found["chi2_num_bins"] < before["chi2_num_bins"]
  assert found["pion_flow"] == before["pion_flow"]


def test_missing_measurements_are_named(finished, environment, tmp_path):
  shutil.copytree(finished, tmp_path / "copy")
  last = sorted((tmp_path / "copy" / "flow-measured").glob("part-*.h5"))[-1]
  last.unlink()
  result = _run(environment, "make_figures", tmp_path / "copy")
  assert result.returncode == 2 and "run `flowqcd measure`" in result.stderr


@pytest.mark.parametrize("kills", [1, slow(3)])
def test_killed_anywhere_and_run_again_it_ends_the_same(finished, environment, tmp_path, kills):
  rng, folder = random.Random(7), tmp_path / "smoke"
  count = lambda path: sum(len(names) for _, _, names in os.walk(path))
  for part in range(kills):
    # At some point of each part of the work, by the files that are there, whatever the machine's speed.
    enough = count(finished) * (part + rng.random()) / kills
    process = subprocess.Popen(
      _command("reproduce", folder), env=environment, cwd=ROOT,
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while count(folder) < enough and process.poll() is None:
      time.sleep(0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
  result = _run(environment, "reproduce", folder)
  assert result.returncode == 0, result.stderr
  for name in ("flow", "hmc", "flow-measured", "hmc-measured"):
    ours, theirs = (ensembles.Ensemble.open(f / name) for f in (folder, finished))
    assert ours.names == theirs.names
    for column in ours.names:
      np.testing.assert_array_equal(ours.read(column), theirs.read(column), err_msg=f"{name} {column}")


def test_frozen_streams_are_reported(environment, tmp_path):
  # Hopeless trajectories: nothing is ever accepted.
  flags = ["--config.hmc.tau=60", "--config.hmc.steps=1", "--config.theory.beta=60", "--config.hmc.thermalisation=0",
           "--config.theory.num_flavours=0", "--config.hmc.trajectories=20"]  # fmt: skip
  result = _run(environment, "run_hmc", tmp_path / "a", *flags)
  assert result.returncode == 0
  assert (
    "warning: HMC streams 0, 1, 2, 3 never accepted a trajectory: raise hmc.steps or lower hmc.tau" in result.stderr
  )


@pytest.mark.parametrize("value, error, text", [
  (0.36412, 0.0012266, "0.3641(12)"), (45.9354, 0.00301, "45.9354(30)"), (1234.5, 67.0, "1234(67)"),
  (0.991, 0.00042, "0.99100(42)"), (3.0, 0.0, "3"), (float("nan"), 1.0, "nan"), (-0.5, 0.25, "-0.50(25)"),
  (0.99996, 0.00996, "1.000(10)"),
])  # fmt: skip
def test_numbers_with_errors_in_brackets(value, error, text):
  assert report.number(value, error) == text
