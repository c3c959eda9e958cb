"""What is wrong with a run that is short, poor or broken, in words that say what helps; and estimates that never fail.

A run of any quality ends in a report. Where a number has no error, or may not be believed, the report says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flowqcd.analysis import statistics, weights
from flowqcd.runs.theories import Theory

_LEAST = 8
"""Entries of a stream below which it has no error."""
_POOR = 0.3
"""Acceptance below which most of the work is lost."""


class Found(NamedTuple):
  """An estimate, whose error is NaN where none can be given, and why that is; empty where it can."""

  estimate: statistics.Estimate
  trouble: str = ""


def chain_mean(series: np.ndarray) -> Found:
  """`statistics.chain_mean` of [streams, n], or the plain mean without an error."""
  if series.shape[1] < _LEAST:
    return _without_error(series, f"streams of {series.shape[1]} entries: at least {_LEAST} are needed for an error")
  try:
    return Found(statistics.chain_mean(series))
  except ValueError as error:
    return _without_error(series, str(error))


def reweighted_mean(log_w: np.ndarray, values: np.ndarray) -> Found:
  """`weights.reweighted_mean_jackknife` of [N, ...], or the mean without an error."""
  try:
    return Found(weights.reweighted_mean_jackknife(log_w, values))
  except ValueError as error:
    mean = np.tensordot(weights.shares(log_w), values, axes=(0, 0))
    return Found(statistics.Estimate(mean, np.full(np.shape(mean), np.nan)), str(error))


def _without_error(series: np.ndarray, trouble: str) -> Found:
  return Found(statistics.Estimate(np.asarray(np.mean(series)), np.asarray(np.nan)), trouble)


def gamma_method(series: np.ndarray) -> statistics.GammaResult | None:
  """`statistics.gamma_method` of [streams, n]; None where it has no answer."""
  try:
    return statistics.gamma_method(series)
  except ValueError:
    return None


def failures(delta_h: np.ndarray) -> int:
  """Trajectories whose dH is no finite number: a solver did not converge, or the integrator ran away."""
  return int((~np.isfinite(delta_h)).sum())


def of_hmc(theory: Theory, accepted: np.ndarray, delta_h: np.ndarray, plaquette: np.ndarray) -> list[str]:
  """What is wrong with HMC streams [streams, n], and what helps; empty where nothing is.

  A trajectory that failed is no rejection of HMC's, although its proposal is rejected: it is counted and named by itself.
  """
  failed = failures(delta_h)
  found = [_failed(theory, failed, delta_h.size)] if failed else []
  if accepted.shape[1] < _LEAST:
    text = f"HMC has {accepted.shape[1]} trajectories a stream, and {_LEAST} are needed for an error"
    return [*found, f"{text}: raise hmc.trajectories"]
  diagnosis = statistics.chain_diagnosis(accepted, plaquette)
  still = diagnosis.never_accepted
  if still:
    found.append(f"HMC streams {_listed(still)} never accepted a trajectory: raise hmc.steps or lower hmc.tau")
  stalled = [int(s) for s in np.flatnonzero(2 * diagnosis.longest_rejection > accepted.shape[1]) if s not in still]
  if stalled:
    found.append(
      f"HMC streams {_listed(stalled)} rejected for more than half their length in a row: raise hmc.steps or lower hmc.tau"
    )
  if not failed and not still and not stalled and accepted.mean() < _POOR:
    found.append(f"HMC accepts {accepted.mean():.2g} of its trajectories: raise hmc.steps or lower hmc.tau")
  if diagnosis.r_hat > statistics.MAX_R_HAT and not still:
    found.append(
      f"HMC streams disagree with each other, or with themselves later (split R-hat {diagnosis.r_hat:.3g}, above "
      f"{statistics.MAX_R_HAT}): they have not forgotten where they started; raise hmc.thermalisation or hmc.trajectories"
    )
  return found


def _failed(theory: Theory, failed: int, total: int) -> str:
  text = f"in {failed} of {total} HMC trajectories dH was no finite number, and the proposal was dropped"
  if not theory.num_flavours:
    return f"{text}: the integrator ran away; raise hmc.steps or lower hmc.tau"
  dimensions = len(theory.lattice)
  return (
    f"{text}: the solver of the quarks did not converge. theory.kappa = {theory.kappa} may be beyond its critical value, "
    f"where quarks have no mass and the solver no end: that is {1 / (2 * dimensions):g} without gauge fields and grows as "
    f"theory.beta falls{', up to about 0.25' if dimensions == 4 else ''}. Lower theory.kappa"
  )


def of_metropolis(accepted: np.ndarray, series: np.ndarray) -> list[str]:
  """What is wrong with a chain over the flow's samples [N]."""
  if len(accepted) < _LEAST:
    return [f"{len(accepted)} samples make no chain: raise sampling.num_samples"]
  return list(statistics.chain_diagnosis(accepted, series).messages)


def _listed(streams: Sequence[int]) -> str:
  return ", ".join(map(str, streams))
