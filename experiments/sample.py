"""Draw configurations from the marginal flow with exact weights: `python -m experiments.sample --preset=...`."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import configuration, environment, presets, systems, train_marginal
from flowqcd import distributed
from flowqcd.analysis import weights
from flowqcd.io import ensembles, metrics
from flowqcd.models import priors
from flowqcd.theory import gauge
from flowqcd.types import Array, Key, Params


def run(config: presets.Experiment) -> ensembles.Ensemble:
  """Fill the ensemble `flow` up to num_samples, from where it stands."""
  dtype = environment.start(config)
  folder = environment.claim(config)
  params = train_marginal.run(config)
  store = ensembles.Ensemble.open_or_create(folder / "flow", environment.provenance(config))
  model = systems.marginal_model(config, dtype)

  def one(params: Params, key: Key) -> dict[str, Array]:
    sample = model.sample(params, key)
    action = gauge.wilson(sample.u, config.theory.beta)
    log_det = systems.log_det(config.theory, sample.u)
    return {
      "u": sample.u,
      "log_q": sample.log_q,
      "gauge_action": action,
      "log_det": log_det,
      "log_w": log_det - action - sample.log_q,
    }

  draw = distributed.parallel_map(one, config.sampling.chunk, num_shared=1)
  key = jax.random.fold_in(jax.random.key(config.seed), 3)
  total, done = config.sampling.num_samples, len(store)
  progress = environment.Progress("flow samples", total, done)
  while done < total:
    # Sample i has its own key, so neither a resume nor the batch size changes what is drawn.
    count, clock = min(config.sampling.batch, total - done), time.process_time()
    batch = jax.device_get(draw(params, distributed.item_keys(key, 0, done, count)))
    if not np.isfinite(batch["log_w"]).all():
      raise ValueError(f"samples {done} to {done + count} have weights that are not finite")
    store.append(batch, {"cpu_seconds": time.process_time() - clock})
    done += count
    progress.update(done, f"ess {float(weights.ess(store.read('log_w'))):.4f}")
  haar_ess(config)
  return store


def haar_ess(config: presets.Experiment) -> float | None:
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
  dtype = jnp.dtype("complex64" if config.precision == "single" else "complex128")
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


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
