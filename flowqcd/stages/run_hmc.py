"""Hybrid Monte Carlo in independent streams: `python -m experiments.run_hmc --preset=...`."""

from __future__ import annotations

from flowqcd.analysis import statistics
from flowqcd.io import ensembles
from flowqcd.runs import environment, settings, systems
from flowqcd.stages import chains


def run(config: settings.Experiment) -> ensembles.Ensemble:
  """Fill the ensemble `hmc`: every thin-th configuration of each stream, and dH, acceptance, plaquette of all.

  Raises ValueError naming the streams if some never move.
  """
  environment.start(config)
  store = fill(config)
  accepted, plaquette = (chains.steps(store, name) for name in ("accepted", "plaquette"))
  statistics.require_healthy(statistics.chain_diagnosis(accepted, plaquette))
  return store


def fill(config: settings.Experiment) -> ensembles.Ensemble:
  """The same, whether streams move or not."""
  columns = lambda info: {"delta_h": info.delta_h, "accepted": info.accepted}
  return chains.fill(config, "hmc", systems.hmc_kernel(config), columns, salt=5)
