"""Chains against each other: in a run of seconds."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import signal

from flowqcd import commands, presets
from flowqcd.io import ensembles, metrics
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chain_report, compare_chains
from flowqcd.theory import torus


def _config(folder):
  base = presets.PRESETS["su3_4d"]
  return dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, beta=4.0),
    hmc=HMC(streams=4, trajectories=48, thermalisation=16, thin=2, tau=1.0, steps=5, integrator="omelyan2"),
    measurement=dataclasses.replace(base.measurement, flow_time=0.2, chunk=8),
    precision="single",
    output=str(folder),
  )


def test_chains_agree_and_go_on(tmp_path):
  config = _config(tmp_path / "run")
  found = commands.compare_chains(config)
  assert list(found) == ["hmc", "heatbath", "link_flow"]
  for chain in found.values():
    assert chain["steps"] == 4 * 48 and 0.5 < chain["acceptance"] <= 1
    for name in ("plaquette", "q2"):
      difference = chain[name] - found["hmc"][name]
      error = math.hypot(chain[f"{name}_err"], found["hmc"][f"{name}_err"])
      assert abs(difference) < 4 * error + (chain is found["hmc"])
      assert chain[f"{name}_cost"] == pytest.approx(2 * chain[f"{name}_tau_int"] * chain["milliseconds"])
      known = not found["hmc"][f"{name}_limit"]
      ratio = chain[f"{name}_cost"] / found["hmc"][f"{name}_cost"] if known else None
      assert chain.get(f"{name}_cost_ratio") == (pytest.approx(ratio) if known else None)
    assert "plaquette_cost_ratio" in chain
    assert chain["plaquette_err"] < 0.005
  assert metrics.read_json(tmp_path / "run" / "chains.json") == found
  text = (tmp_path / "run" / "chains.md").read_text()
  assert text.count("| plaquette |") == text.count("| Q^2 |") == 3 and "link flow" in text
  assert (tmp_path / "run" / "chains.png").stat().st_size > 10_000
  # A chain that lost its last part goes on from the one before.
  parts = sorted((tmp_path / "run" / "link_flow").glob("*.h5"))
  before = ensembles.Ensemble.open(tmp_path / "run" / "link_flow").read("plaquette")
  parts[-1].unlink()
  commands.compare_chains(config)
  after = ensembles.Ensemble.open(tmp_path / "run" / "link_flow").read("plaquette")
  assert (before == after).all()


def test_two_dimensions_without_thermalisation_and_hmc_that_never_accepts(tmp_path):
  base = _config(tmp_path / "run")
  theory = dataclasses.replace(base.theory, lattice=(4, 4), boundary=(-1.0, 1.0), beta=6.0)
  streams = dataclasses.replace(base.hmc, streams=16, trajectories=240, thermalisation=0, thin=10, tau=80.0, steps=2)
  config = dataclasses.replace(base, theory=theory, hmc=streams)
  found = commands.compare_chains(config)
  exact = torus.exact(3, 6.0, 16).plaquette
  hmc = found.pop("hmc")
  assert hmc["acceptance"] == 0 and "constant" in hmc["plaquette_trouble"] and "plaquette" not in hmc
  for chain in found.values():
    # Streams start at Haar links; that is gone after a step or ten.
    assert abs(chain["plaquette"] - exact) < 4 * chain["plaquette_err"] + 0.01
    assert "q2" not in chain and "plaquette_cost_ratio" not in chain
  text = (tmp_path / "run" / "chains.md").read_text()
  assert "charge" not in text and "never moved" in text and text.count("unknown") == 2


def test_estimates_of_charges_that_are_frozen_or_independent():
  rng = np.random.default_rng(0)
  found = compare_chains.estimate("q", rng.normal(size=(4, 400)), 10, 2.0)
  assert found["q_limit"] and found["q_cost"] == pytest.approx(4.0 * found["q_tau_int"]) and found["q_tau_int"] >= 5
  slow = signal.lfilter([1.0], [1.0, -0.9], rng.normal(size=(4, 4000)), axis=1)[:, 100:]
  found_slow = compare_chains.estimate("q", slow, 10, 2.0)
  assert not found_slow["q_limit"] and found_slow["q_tau_int"] == pytest.approx(95, rel=0.3)
  frozen = np.concatenate([rng.normal(size=(3, 400)), np.ones((1, 400))])
  assert "constant" in compare_chains.estimate("q", frozen, 10, 2.0)["q_trouble"]
  healthy = {"acceptance": 1.0, "milliseconds": 2.0} | found
  chains = {"hmc": healthy, "link_flow": healthy | compare_chains.estimate("q", frozen, 10, 2.0)}
  config = _config("run")
  text = chain_report.markdown(config.theory, config.hmc, config.sweeps, 0.2, chains)
  assert "at most" in text and "unknown" in text and "constant" in text


def test_other_theories_are_refused(tmp_path):
  config = _config(tmp_path / "run")
  config = dataclasses.replace(config, training=dataclasses.replace(config.training, determinant="none"))
  for change, words in (
    ({"num_flavours": 2}, "without quarks"),
    ({"nc": 2}, "without quarks"),
    ({"lattice": (4, 4, 4, 5)}, r"even extents, not \(4, 4, 4, 5\)"),
  ):
    with pytest.raises(ValueError, match=words):
      commands.compare_chains(dataclasses.replace(config, theory=dataclasses.replace(config.theory, **change)))
  with pytest.raises(ValueError, match="leave 12 configurations a stream; at least 24"):
    commands.compare_chains(dataclasses.replace(config, hmc=dataclasses.replace(config.hmc, thin=4)))
  assert not (tmp_path / "run").exists()
