"""What reweighting Haar-random links would be worth."""

from __future__ import annotations

import numpy as np

from flowqcd import distributed
from flowqcd.analysis import weights
from flowqcd.models import priors
from flowqcd.runs import theories
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.types import Array, Key


def ess(run: Run, theory: Theory, count: int, chunk: int) -> float | None:
  """ESS of reweighting `count` Haar-random links to the target; None for 0. Kept in haar.json.

  Weights use the exact gauge action and the leading hopping terms; the largest 32, which carry the sum, get the exact
  determinant, `chunk` of them at a time.
  """
  if not count:
    return None
  if (found := run.record("haar.json")) is not None:
    return found["ess"]
  prior = priors.haar(theory.nc, theory.lattice, run.dtype)
  keys = distributed.item_keys(run.key(4), 0, 0, count)
  approximate = distributed.parallel_map(lambda key: -theories.leading_action(theory, prior.sample(key)), 16)
  log_w = np.asarray(approximate(keys), np.float64)
  top = np.argsort(log_w)[-min(32, count) :]

  def correction(key: Key) -> Array:
    u = prior.sample(key)
    exact = theories.log_det(theory, u) - theories.gauge_value(theory, u)
    return exact + theories.leading_action(theory, u)

  shift = np.asarray(distributed.parallel_map(correction, chunk)(keys[top]))
  # The hopping terms leave out a constant of the determinant: all are shifted alike but the corrected ones, by themselves.
  log_w = log_w + shift.mean()
  log_w[top] += shift - shift.mean()
  value = float(weights.ess(log_w))
  run.write("haar.json", {"ess": value, "num_samples": count, "num_exact": len(top)})
  return value
