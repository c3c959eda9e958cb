"""Hybrid Monte Carlo in independent streams: `python -m experiments.run_hmc --preset=...`."""

from __future__ import annotations

from experiments import chains, configuration, environment, presets, settings, systems
from flowqcd.analysis import statistics
from flowqcd.io import ensembles


def run(config: settings.Experiment) -> ensembles.Ensemble:
  """Fill the ensemble `hmc`: every thin-th configuration of each stream, and dH, acceptance, plaquette of all.

  Raises ValueError naming the streams if some never move.
  """
  environment.start(config)
  columns = lambda info: {"delta_h": info.delta_h, "accepted": info.accepted}
  store = chains.fill(config, "hmc", systems.hmc_kernel(config), columns, salt=5)
  accepted, plaquette = (chains.steps(store, name) for name in ("accepted", "plaquette"))
  statistics.require_healthy(statistics.chain_diagnosis(accepted, plaquette))
  return store


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
