"""Configurations from the marginal flow with exact weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from flowqcd import distributed, hosts
from flowqcd.analysis import weights
from flowqcd.io import ensembles
from flowqcd.models import marginal
from flowqcd.runs import folder, theories
from flowqcd.runs.folder import Run
from flowqcd.runs.progress import Progress
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field
from flowqcd.stages import draws
from flowqcd.stages.draws import Estimate, Estimates
from flowqcd.stages.train_conditional import Trained
from flowqcd.types import Array, Key


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Flow samples with exact weights."""

  num_samples: int = field(1024, "Configurations drawn.")
  batch: int = field(64, "Configurations per file; what a kill can cost.")
  chunk: int = field(4, "Configurations vectorised at once on a device.")
  num_haar: int = field(65_536, "Haar-random configurations for the ESS of plain reweighting; 0 for none.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot sample."""
    if self.num_samples < 2 or min(self.batch, self.chunk) < 1 or self.num_haar < 0:
      raise ValueError("sampling.num_samples must be at least 2, batch and chunk at least 1, num_haar at least 0")


def fill(
  run: Run,
  theory: Theory,
  model: marginal.Marginal,
  estimates: Estimates | None,
  params: Trained,
  sampling: Sampling,
) -> ensembles.Ensemble:
  """Fill the ensemble `flow` up to num_samples, from where it stands.

  log_w is of the marginal model with the exact determinant; log_w_joint, where there is a conditional model, has the mean
  over its draws in the determinant's place, and log_draws [draws] are the single ones. Draws that are wanted beyond those
  that samples have go to `flow-draws`. Raises ValueError where more is there than is asked for.
  """
  store = run.store("flow")
  estimate = estimates.make(draws.stored_with(store, estimates.draws), 0) if estimates else None
  draw = distributed.parallel_map(_sampler(theory, model, estimate), sampling.chunk, num_shared=1)
  total, done = sampling.num_samples, len(store)
  folder.require_growth("sampling.num_samples", total, done, str(store.path))
  column = "log_w_joint" if estimates else "log_w"
  progress = Progress("flow samples", total, done)
  log_w = store.read(column) if done else np.empty(0)
  while done < total:
    # Sample i has its own key, so neither a resume nor the batch size changes what is drawn.
    count, clock = min(sampling.batch, total - done), time.process_time()
    links = distributed.item_keys(run.key(3), 0, done, count)
    batch = jax.device_get(draw(params, links, draws.keys(run, done, count)))
    bad = [name for name in batch if name.startswith("log_") and not np.isfinite(batch[name]).all()]
    if bad:
      raise ValueError(f"samples {done} to {done + count}: {', '.join(bad)} not finite")
    store.append(batch, {"cpu_seconds": hosts.summed(time.process_time() - clock)})
    done += count
    log_w = np.append(log_w, batch[column])
    progress.update(done, f"ess {float(weights.ess(log_w)):.4f}")
  if estimates:
    draws.fill(run, store, estimates, params.conditional, sampling.chunk)
  return store


def _sampler(
  theory: Theory, model: marginal.Marginal, estimate: Estimate | None
) -> Callable[[Trained, Key, Key], dict[str, Array]]:
  """One configuration with its weights."""

  def one(params: Trained, key: Key, draws_key: Key) -> dict[str, Array]:
    sample = model.sample(params.marginal, key)
    action = theories.gauge_value(theory, sample.u)
    log_det = theories.log_det(theory, sample.u)
    row = {
      "u": sample.u,
      "log_q": sample.log_q,
      "gauge_action": action,
      "log_det": log_det,
      "log_w": log_det - action - sample.log_q,
    }
    if estimate is None:
      return row
    found = estimate(params.conditional, sample.u, draws_key)
    return row | {"log_w_joint": found.log_mean - action - sample.log_q, "log_draws": found.log_draws}

  return one
