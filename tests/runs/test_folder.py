"""A run's folder: whose it is, for how long, and by which configuration."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from flowqcd import experiment, presets
from flowqcd.io import ensembles, files, locks, metrics
from flowqcd.runs import tree

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


def _fill(config):
  """A folder that holds something of everything; what, does not matter."""
  run = experiment.claim(config)
  for name in run.products:
    if name.endswith(".json"):
      metrics.write_json(run.folder / name, {})
    elif name.endswith("checkpoints"):
      (run.folder / name / "4").mkdir(parents=True)
    else:
      store = run.store(name)
      store.append({"x": np.zeros(3)})
      store.close()
  return run


def test_a_folder_is_bound_by_what_it_holds_alone(tmp_path):
  config = _config(tmp_path / "run")
  assert experiment.claim(config).folder == experiment.claim(config).folder == tmp_path / "run"
  other = dataclasses.replace(config, seed=7)
  experiment.claim(other).store("hmc").close()
  assert metrics.read_json(tmp_path / "run" / "config.json") == experiment.provenance(other)
  # An ensemble without a part is nothing.
  experiment.claim(config).store("hmc").append({"x": np.zeros(1)})
  with pytest.raises(ValueError, match=r"run holds hmc of other settings \(seed: 2208 there, 7 here\); choose another"):
    experiment.claim(other)
  assert metrics.read_json(tmp_path / "run" / "hmc" / "ensemble.json")["config"]["seed"] == 2208


TRAINED = ["checkpoints", "conditional_checkpoints", "flow", "flow-draws", "flow-measured"]
HMC = ["hmc", "hmc-measured"]
CHAINS = ["heatbath", "heatbath-measured", "link_flow", "link_flow-measured"]


@pytest.mark.parametrize("setting, value, bound", [
  ("theory.beta", "2.0", [*TRAINED, *HMC, *CHAINS, "annealed"]),
  ("seed", "1", [*TRAINED, *HMC, *CHAINS, "annealed"]),
  ("precision", "single", [*TRAINED[2:], *HMC, *CHAINS, "annealed"]),
  ("flow.steps", "4", [*TRAINED, "annealed"]),
  ("coupling.layers", "4", []),
  ("prior.beta", "0.5", [*TRAINED, "annealed"]),
  ("training.batch", "8", TRAINED),
  ("training.num_steps", "9", TRAINED[1:]),
  ("training.round", "true", TRAINED[1:]),
  ("training.evaluate_every", "9", []),
  ("training.start_from", "su3-4d-beta2", [*TRAINED, "annealed"]),
  ("optimizer.learning_rate", "0.5", TRAINED),
  ("conditional.ptcn.copies", "4", TRAINED[1:]),
  ("conditional.draws", "99", []),
  ("conditional_training.steps", "2,9", TRAINED[2:]),
  ("conditional_training.steps", "2,1", TRAINED[1:]),
  ("conditional_training.steps", "3,2", TRAINED[1:]),
  ("conditional_training.rates", "1e-3,1e-2", TRAINED[1:]),
  ("sampling.num_samples", "9999", []),
  ("hmc.trajectories", "5000", []),
  ("hmc.steps", "50", HMC),
  ("hmc.thin", "10", [*HMC, *CHAINS]),
  ("sweeps.overrelaxation", "3", CHAINS),
  ("sweeps.reflections", "3", CHAINS[2:]),
  ("annealing.stages", "3", ["annealed"]),
  ("measurement.flow_time", "3.0", ["flow-measured", "hmc-measured", "heatbath-measured", "link_flow-measured"]),
  ("measurement.bins", "9", []),
  ("compilation", "full", []),
])  # fmt: skip
def test_what_hangs_on_a_setting(tmp_path, setting, value, bound):
  config = _config(tmp_path / "run")
  there = experiment.provenance(config)
  run = experiment.run(tree.override(config, {setting: value}, ""))
  found = [name for name, product in run.products.items() if run.differing(name, there) and not product.quick]
  assert sorted(found) == sorted(bound)


def test_chunks_are_for_cpus_and_accelerators_take_more(tmp_path, monkeypatch):
  config = tree.override(
    _config(tmp_path), {"theory.lattice": "8,8", "sampling.chunk": "2048", "conditional.chunk": "2"}, ""
  )
  assert experiment.on_devices(config) == config
  monkeypatch.setattr("jax.default_backend", lambda: "gpu")
  wide = experiment.on_devices(config)
  assert (wide.training.chunk, wide.conditional_training.chunk, wide.measurement.chunk) == (1024, 1024, 1024)
  assert wide.sampling.chunk == 2048 and wide.conditional.chunk == 2
  run = experiment.run(config)
  assert not [name for name in run.products if run.differing(name, experiment.provenance(wide))]
  as_they_are = tree.override(config, {"accelerator_sites": "0"}, "")
  assert experiment.on_devices(as_they_are) == as_they_are
  with pytest.raises(ValueError, match="accelerator_sites must not be negative, not -1"):
    tree.override(config, {"accelerator_sites": "-1"}, "")


def test_phases_of_training_may_be_added(tmp_path):
  more = {"steps": "2,2,7", "batches": "16,16,8", "rates": "1e-3,5e-4,1e-4"}
  config = _config(tmp_path / "run")
  longer = tree.override(config, {f"conditional_training.{k}": v for k, v in more.items()}, "")
  there, here = map(experiment.provenance, (config, longer))
  assert not experiment.run(longer).differing("conditional_checkpoints", there)
  assert experiment.run(config).differing("conditional_checkpoints", here)
  assert experiment.run(longer).differing("flow", there)


def test_what_only_asks_for_more_is_taken_over(tmp_path):
  config = _config(tmp_path / "run")
  _fill(config)
  longer = tree.override(config, {"hmc.trajectories": "5000", "sampling.num_samples": "999"}, "")
  run = experiment.claim(longer)
  assert metrics.read_json(run.folder / "config.json")["hmc.trajectories"] == 5000
  run.store("hmc").close()
  assert metrics.read_json(run.folder / "hmc" / "ensemble.json")["config"]["hmc.trajectories"] == 5000
  np.testing.assert_array_equal(run.store("hmc").read("x"), np.zeros(3))


def test_what_other_settings_made_is_moved_aside_when_asked(tmp_path):
  config = _config(tmp_path / "run")
  run = _fill(config)
  (run.folder / "report.md").write_text("HMC against the flow\n")
  before = sorted(p.name for p in run.folder.iterdir())
  other = tree.override(config, {"hmc.steps": "50"}, "")
  with pytest.raises(ValueError, match=r"holds hmc, hmc-measured of other settings \(hmc.steps: 5 there, 50 here\)"):
    experiment.claim(other)
  assert sorted(p.name for p in run.folder.iterdir()) == before
  experiment.claim(dataclasses.replace(other, aside=True))
  (aside,) = run.folder.glob("aside-*")
  assert sorted(p.name for p in aside.iterdir()) == ["hmc", "hmc-measured", "report.md"]
  assert sorted([p.name for p in run.folder.iterdir() if p != aside] + ["hmc", "hmc-measured", "report.md"]) == before
  np.testing.assert_array_equal(ensembles.Ensemble.open(aside / "hmc").read("x"), np.zeros(3))
  experiment.claim(other)
  experiment.claim(dataclasses.replace(other, aside=True))
  assert len(list(run.folder.glob("aside-*"))) == 1


def test_quick_records_of_other_settings_are_made_anew(tmp_path):
  config = _config(tmp_path / "run")
  run = experiment.claim(config)
  for name in ("haar.json", "flow_steps.json"):
    metrics.write_json(run.folder / name, {})
  experiment.claim(tree.override(config, {"sampling.num_haar": "7"}, ""))
  assert sorted(p.name for p in run.folder.glob("*.json")) == ["config.json", "flow_steps.json"]


def test_fields_that_are_newer_than_a_run_count_as_their_defaults(tmp_path):
  config = _config(tmp_path / "run")
  run = _fill(config)
  record = run.folder / "config.json"
  ours, usual = (experiment.provenance(c)["optimizer.beta1"] for c in (config, experiment.Experiment()))
  assert ours == usual == 0.9
  _without(record, "optimizer.beta1", "annealing.loops")
  ours = metrics.read_json(run.folder / "flow" / "ensemble.json")
  metrics.write_json(run.folder / "flow" / "ensemble.json", ours | {"config": metrics.read_json(record)})
  other = tree.override(config, {"optimizer.beta1": "0.8"}, "")
  with pytest.raises(ensembles.EnsembleError, match=r"\(optimizer.beta1: 0.9 there by default, 0.8 here\)$"):
    experiment.run(other).store("flow")
  with pytest.raises(ValueError, match=r"\(optimizer.beta1: 0.9 there by default, 0.8 here\)"):
    experiment.claim(other)
  experiment.claim(config).store("flow")


def test_fields_that_are_unknown_are_refused_by_name(tmp_path):
  config = _config(tmp_path / "run")
  record = _fill(config).folder / "config.json"
  for name, value in (("theory.gravity", 1), ("theory.gravity", None), ("universe.age", 13.8)):
    _without(record, "theory.gravity", **{name: value})
    with pytest.raises(ValueError, match=rf"\({name}: {value} there, no such field here\)"):
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
