"""Hybrid Monte Carlo in independent streams."""

from __future__ import annotations

from flowqcd.io import ensembles
from flowqcd.runs import progress, trajectories
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chains, health


def run(run: Run, theory: Theory, plan: HMC) -> ensembles.Ensemble:
  """Fill the ensemble `hmc`: every thin-th configuration of each stream, and dH, acceptance, plaquette of all.

  Says what is wrong with the streams, where something is.
  """
  store = fill(run, theory, plan)
  columns = [chains.steps(store, name) for name in ("accepted", "delta_h", "plaquette")]
  for text in health.of_hmc(theory, *columns):
    progress.say(f"warning: {text}")
  return store


def fill(run: Run, theory: Theory, plan: HMC) -> ensembles.Ensemble:
  """The same without a word."""
  kernel = trajectories.kernel(theory, plan, run.precision)
  columns = lambda info: {"delta_h": info.delta_h, "accepted": info.accepted}
  return chains.fill(run, theory, "hmc", kernel, columns, plan, salt=5)
