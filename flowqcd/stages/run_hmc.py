"""Hybrid Monte Carlo in independent streams."""

from __future__ import annotations

from flowqcd.analysis import statistics
from flowqcd.io import ensembles
from flowqcd.runs import trajectories
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chains


def run(run: Run, theory: Theory, plan: HMC) -> ensembles.Ensemble:
  """Fill the ensemble `hmc`: every thin-th configuration of each stream, and dH, acceptance, plaquette of all.

  Raises ValueError naming the streams if some never move.
  """
  store = fill(run, theory, plan)
  accepted, plaquette = (chains.steps(store, name) for name in ("accepted", "plaquette"))
  statistics.require_healthy(statistics.chain_diagnosis(accepted, plaquette))
  return store


def fill(run: Run, theory: Theory, plan: HMC) -> ensembles.Ensemble:
  """The same, whether streams move or not."""
  kernel = trajectories.kernel(theory, plan, run.precision)
  columns = lambda info: {"delta_h": info.delta_h, "accepted": info.accepted}
  return chains.fill(run, theory, "hmc", kernel, columns, plan, salt=5)
