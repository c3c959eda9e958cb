"""Draw configurations from the marginal flow with exact weights: `python -m experiments.sample --preset=...`."""

from __future__ import annotations

import time

import jax
import numpy as np

from flowqcd import distributed
from flowqcd.analysis import weights
from flowqcd.io import ensembles, metrics
from flowqcd.models import joint, priors
from flowqcd.runs import environment, settings, systems
from flowqcd.stages import step_error, train_conditional
from flowqcd.theory import gauge
from flowqcd.types import Array, Key


def run(config: settings.Experiment) -> ensembles.Ensemble:
  """Fill the ensemble `flow` up to num_samples, from where it stands.

  log_w is of the marginal model with the exact determinant; log_w_joint, where there is a conditional model, has the mean
  over its draws in the determinant's place, and log_draws [draws] are the single ones.
  """
  dtype = environment.start(config)
  folder = environment.claim(config)
  params = train_conditional.run(config)
  step_error.check_flow(config, params.marginal, folder)
  store = environment.store(config, folder / "flow")
  model = systems.marginal_model(config, dtype)

  choice = config.conditional
  if config.is_joint:
    determinant = joint.log_determinant(systems.conditional_model(config, config.precision), choice.draws, choice.chunk)

  def one(params: train_conditional.Trained, key: Key, draws_key: Key) -> dict[str, Array]:
    sample = model.sample(params.marginal, key)
    action = gauge.wilson(sample.u, config.theory.beta)
    log_det = systems.log_det(config.theory, sample.u)
    row = {
      "u": sample.u,
      "log_q": sample.log_q,
      "gauge_action": action,
      "log_det": log_det,
      "log_w": log_det - action - sample.log_q,
    }
    if not config.is_joint:
      return row
    estimate = determinant(params.conditional, sample.u, draws_key)
    return row | {"log_w_joint": estimate.log_mean - action - sample.log_q, "log_draws": estimate.log_draws}

  draw = distributed.parallel_map(one, config.sampling.chunk, num_shared=1)
  root = jax.random.key(config.seed)
  streams = [jax.random.fold_in(root, i) for i in (3, 11)]
  total, done = config.sampling.num_samples, len(store)
  column = "log_w_joint" if config.is_joint else "log_w"
  progress = environment.Progress("flow samples", total, done)
  while done < total:
    # Sample i has its own key, so neither a resume nor the batch size changes what is drawn.
    count, clock = min(config.sampling.batch, total - done), time.process_time()
    batch = jax.device_get(draw(params, *(distributed.item_keys(key, 0, done, count) for key in streams)))
    bad = [name for name in batch if name.startswith("log_") and not np.isfinite(batch[name]).all()]
    if bad:
      raise ValueError(f"samples {done} to {done + count}: {', '.join(bad)} not finite")
    store.append(batch, {"cpu_seconds": time.process_time() - clock})
    done += count
    progress.update(done, f"ess {float(weights.ess(store.read(column))):.4f}")
  haar_ess(config)
  return store


def haar_ess(config: settings.Experiment) -> float | None:
  """ESS of reweighting Haar-random links to the target; None if num_haar is 0. Kept in haar.json.

  Weights use the exact gauge action and the leading hopping terms; the largest 32, which carry the sum, get the exact
  determinant.
  """
  folder, count, theory = environment.claim(config), config.sampling.num_haar, config.theory
  if not count:
    return None
  record = folder / "haar.json"
  if record.exists():
    return metrics.read_json(record)["ess"]
  dtype = systems.dtype(config.precision)
  prior, target = priors.haar(theory.nc, theory.lattice, dtype), systems.flow_target(theory)
  keys = distributed.item_keys(jax.random.fold_in(jax.random.key(config.seed), 4), 0, 0, count)
  approximate = distributed.parallel_map(lambda key: -systems.trivializing.target_action(target, prior.sample(key)), 16)
  log_w = np.asarray(approximate(keys), np.float64)
  top = np.argsort(log_w)[-min(32, count) :]

  def correction(key: Key) -> Array:
    u = prior.sample(key)
    exact = systems.log_det(theory, u) - gauge.wilson(u, theory.beta)
    return exact + systems.trivializing.target_action(target, u)

  shift = np.asarray(distributed.parallel_map(correction, config.sampling.chunk)(keys[top]))
  # The hopping terms leave out a constant of the determinant: all are shifted alike but the corrected ones, by themselves.
  log_w = log_w + shift.mean()
  log_w[top] += shift - shift.mean()
  value = float(weights.ess(log_w))
  metrics.write_json(record, {"ess": value, "num_samples": count, "num_exact": len(top)})
  return value
