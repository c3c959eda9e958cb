"""A run's folder: whose it is, for how long, and by which configuration."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from flowqcd import distributed, experiment, presets
from flowqcd.io import ensembles, files, locks, metrics

ROOT = pathlib.Path(__file__).parents[2]
_HOLD = """
import dataclasses, sys
from flowqcd import experiment, presets
experiment.claim(dataclasses.replace(presets.PRESETS["smoke"], output=sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def _config(folder, **changes):
  return dataclasses.replace(presets.PRESETS["smoke"], output=str(folder), **changes)


def _without(record, *names, **others):
  """The configuration of a version that had not these fields, and others instead."""
  found = metrics.read_json(record)
  metrics.write_json(record, {k: v for k, v in found.items() if k not in names} | others)


def test_a_folder_is_claimed_again_by_the_same_configuration(tmp_path):
  config = _config(tmp_path / "run")
  assert experiment.claim(config).folder == experiment.claim(config).folder == tmp_path / "run"
  assert metrics.read_json(tmp_path / "run" / "config.json") == experiment.provenance(config)
  with pytest.raises(ValueError, match=r"another configuration \(seed: 2208 there, 7 here\)"):
    experiment.claim(dataclasses.replace(config, seed=7))


def test_fields_that_are_newer_than_a_run_count_as_their_defaults(tmp_path):
  record, config = tmp_path / "run" / "config.json", _config(tmp_path / "run")
  store = experiment.claim(config).store("flow")
  store.close()
  ours, usual = (experiment.provenance(c)["optimizer.beta1"] for c in (config, experiment.Experiment()))
  assert ours == usual == 0.9
  _without(record, "optimizer.beta1", "annealing.loops")
  ours = metrics.read_json(tmp_path / "run" / "flow" / "ensemble.json")
  ours["config"] = metrics.read_json(record)
  metrics.write_json(tmp_path / "run" / "flow" / "ensemble.json", ours)
  experiment.claim(config)
  experiment.claim(config).store("flow")
  other = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, beta1=0.8))
  with pytest.raises(ValueError, match=r"\(optimizer.beta1: 0.9 there by default, 0.8 here\)"):
    experiment.claim(other)
  with pytest.raises(ensembles.EnsembleError, match=r"other values of optimizer.beta1$"):
    experiment.run(other).store("flow")


def test_fields_that_are_unknown_are_refused_by_name(tmp_path):
  config = _config(tmp_path / "run")
  record = experiment.claim(config).folder / "config.json"
  for value in (1, None):
    _without(record, **{"theory.gravity": value})
    with pytest.raises(ValueError, match=rf"\(theory.gravity: {value} there, no such field here\)"):
      experiment.claim(config)


def test_anothers_config_is_left_alone(tmp_path):
  for text in ("{}\n", '{\n  "editor": "ed"\n}\n'):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="not a run of this program|not .*JSON|damaged"):
      experiment.claim(_config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == text


def test_a_damaged_configuration_is_named(tmp_path):
  config = _config(tmp_path / "run")
  record = experiment.claim(config).folder / "config.json"
  record.write_text(record.read_text().replace("2208", "2209"))
  with pytest.raises(files.StoreError, match=r"config.json is damaged or was altered"):
    experiment.claim(config)


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLD, str(tmp_path / "run")],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
  )  # fmt: skip
  assert process.stdout.readline() == "held\n"
  before = sorted(p.name for p in (tmp_path / "run").iterdir())
  with pytest.raises(locks.LockedError, match=rf"{tmp_path}/run is in use by process {process.pid} on"):
    experiment.claim(_config(tmp_path / "run"))
  assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before
  process.kill()
  process.wait()
  experiment.claim(_config(tmp_path / "run"))


def test_hosts_but_the_first_hold_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(distributed, "is_first_process", lambda: False)
  assert experiment.claim(_config(tmp_path / "run")).folder == tmp_path / "run"
  assert not (tmp_path / "run").exists()


def test_two_runs_in_one_folder_are_one_run_and_one_line(tmp_path):
  folder = tmp_path / "run"
  command = [
    sys.executable, "-m", "experiments.run_hmc", "--preset=smoke", f"--config.output={folder}",
    "--config.theory.num_flavours=0", "--config.hmc.trajectories=80", "--config.hmc.thermalisation=20",
  ]  # fmt: skip
  start = lambda: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  both = [start(), start()]
  errors = [process.communicate(timeout=300)[1] for process in both]
  codes = [process.returncode for process in both]
  assert sorted(codes) == [0, 2], errors
  won = both[codes.index(0)]
  line = errors[codes.index(2)].strip()
  assert line.startswith(f"error: {folder} is in use by process {won.pid} on ") and "\n" not in line
  store = ensembles.Ensemble.open(folder / "hmc")
  config = store.config
  assert len(store) == config["hmc.streams"] * 80 // config["hmc.thin"]
  assert set(store.states().values()) == {"ok"}
