"""Chains against each other: in a run of seconds."""

import dataclasses
import json
import math

import pytest

from experiments import compare_chains, presets
from experiments.settings import HMC
from flowqcd.io import ensembles


def _config(folder):
  base = presets.PRESETS["su3_4d"]
  return dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, beta=4.0),
    hmc=HMC(streams=4, trajectories=64, thermalisation=32, thin=4, tau=1.0, steps=5, integrator="omelyan2"),
    measurement=dataclasses.replace(base.measurement, flow_time=0.2, chunk=8),
    precision="single",
    output=str(folder),
  )


def test_chains_agree_and_go_on(tmp_path):
  config = _config(tmp_path / "run")
  found = compare_chains.run(config)
  assert list(found) == ["hmc", "heatbath", "link_flow"]
  for chain in found.values():
    assert chain["steps"] == 4 * 64 and 0.5 < chain["acceptance"] <= 1
    for name in ("plaquette", "q2"):
      difference = chain[name] - found["hmc"][name]
      error = math.hypot(chain[f"{name}_err"], found["hmc"][f"{name}_err"])
      assert abs(difference) < 4 * error + (chain is found["hmc"])
      assert chain[f"{name}_cost"] == pytest.approx(2 * chain[f"{name}_tau_int"] * chain["milliseconds"])
      assert chain[f"{name}_cost_ratio"] == pytest.approx(chain[f"{name}_cost"] / found["hmc"][f"{name}_cost"])
    assert chain["plaquette_err"] < 0.005
  assert json.loads((tmp_path / "run" / "chains.json").read_text()) == found
  text = (tmp_path / "run" / "chains.md").read_text()
  assert text.count("| plaquette |") == text.count("| Q^2 |") == 3 and "link flow" in text
  assert (tmp_path / "run" / "chains.png").stat().st_size > 10_000
  # A chain that lost its last part goes on from the one before.
  parts = sorted((tmp_path / "run" / "link_flow").glob("*.h5"))
  before = ensembles.Ensemble.open(tmp_path / "run" / "link_flow").read("plaquette")
  parts[-1].unlink()
  compare_chains.run(config)
  after = ensembles.Ensemble.open(tmp_path / "run" / "link_flow").read("plaquette")
  assert (before == after).all()


def test_other_theories_are_refused(tmp_path):
  config = _config(tmp_path / "run")
  config = dataclasses.replace(config, training=dataclasses.replace(config.training, determinant="none"))
  for change in ({"num_flavours": 2}, {"nc": 2}):
    with pytest.raises(ValueError, match="without quarks"):
      compare_chains.run(dataclasses.replace(config, theory=dataclasses.replace(config.theory, **change)))
  assert not (tmp_path / "run").exists()
