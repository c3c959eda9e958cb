"""Hybrid Monte Carlo in independent streams: `python -m experiments.run_hmc --preset=...`."""

from __future__ import annotations

import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import configuration, environment, presets, settings, systems
from flowqcd import distributed
from flowqcd.analysis import statistics
from flowqcd.io import ensembles
from flowqcd.mcmc import hmc
from flowqcd.models import priors
from flowqcd.theory import observables
from flowqcd.types import Array


def run(config: settings.Experiment) -> ensembles.Ensemble:
  """Fill the ensemble `hmc`: every thin-th configuration of each stream, and dH, acceptance, plaquette of all.

  A part holds `thin` trajectories of all streams and ends with the configurations that the next one starts from. Raises
  ValueError naming the streams if some never move.
  """
  dtype = environment.start(config)
  folder = environment.claim(config)
  store = ensembles.Ensemble.open_or_create(folder / "hmc", environment.provenance(config))
  advance = _advance(config)
  total, per_part = config.hmc.trajectories, config.hmc.thin * _parts_together(config)
  done = store.num_parts * per_part
  u = _last(store) if done else _thermalised(config, advance, dtype)
  progress = environment.Progress("hmc trajectories", total, done)
  while done < total:
    clock = time.process_time()
    u, out = advance(u, config.hmc.thermalisation + done, per_part)
    store.append(out, {"cpu_seconds": time.process_time() - clock})
    done += per_part
    progress.update(done, f"acceptance {out['accepted'].mean():.3f}")
  accepted, plaquette = (trajectories(store, name) for name in ("accepted", "plaquette"))
  statistics.require_healthy(statistics.chain_diagnosis(accepted, plaquette))
  return store


def _parts_together(config: settings.Experiment) -> int:
  """How many stored configurations per stream go in one part: a divisor of their number, at most 8.

  Where possible of the thermalisation's too, so that one compiled program serves both.
  """
  stored, discarded = config.hmc.trajectories // config.hmc.thin, config.hmc.thermalisation
  return math.gcd(stored, 8 if discarded % config.hmc.thin else math.gcd(discarded // config.hmc.thin, 8))


def _advance(config: settings.Experiment):
  """(u [streams], first trajectory, count) -> (u, arrays by name), all streams at once."""
  kernel, thin = systems.hmc_kernel(config), config.hmc.thin
  root = jax.random.fold_in(jax.random.key(config.seed), 5)

  def one_stream(trajectories: Array, u: Array, stream: Array) -> tuple[Array, dict[str, Array]]:
    def step(u: Array, trajectory: Array) -> tuple[Array, dict[str, Array]]:
      key = jax.random.fold_in(jax.random.fold_in(root, trajectory), stream)
      state, info = kernel.step(key, hmc.State(u))
      plaquette = observables.mean_plaquette(state.u)
      row = {"delta_h": info.delta_h, "accepted": info.accepted, "plaquette": plaquette}
      return state.u, row

    def block(u: Array, group: Array) -> tuple[Array, tuple[Array, dict[str, Array]]]:
      u, rows = jax.lax.scan(step, u, group)
      return u, (u, rows)

    u, (kept, rows) = jax.lax.scan(block, u, trajectories)
    return u, {"u": kept} | rows

  chunk = -(-config.hmc.streams // jax.local_device_count())
  mapped = distributed.parallel_map(one_stream, chunk, num_shared=1)

  def advance(u: Array, first: int, count: int) -> tuple[Array, dict[str, np.ndarray]]:
    groups = (first + jnp.arange(count)).reshape(-1, min(thin, count))
    u, out = jax.device_get(mapped(groups, u, jnp.arange(config.hmc.streams)))
    # [streams, kept, ...] -> one row of an ensemble per kept configuration and stream.
    return u, {name: x.reshape(-1, *x.shape[2:]) for name, x in out.items()}

  return advance


def _thermalised(config: settings.Experiment, advance, dtype: jnp.dtype) -> Array:
  """Haar-random starts after the thermalisation trajectories."""
  theory = config.theory
  prior = priors.haar(theory.nc, theory.lattice, dtype)
  keys = distributed.item_keys(jax.random.fold_in(jax.random.key(config.seed), 6), 0, 0, config.hmc.streams)
  u = jax.jit(jax.vmap(prior.sample))(keys)
  piece = config.hmc.thin * _parts_together(config)
  progress = environment.Progress("hmc thermalisation", config.hmc.thermalisation)
  for first in range(0, config.hmc.thermalisation, piece):
    count = min(piece, config.hmc.thermalisation - first)
    # A shorter last piece compiles anew; whole multiples of the thinning share one program.
    u, _ = advance(u, first, count - count % config.hmc.thin or count)
    progress.update(first + count)
  return u


def _last(store: ensembles.Ensemble) -> Array:
  """The configurations [streams, ...] that the last part ended with."""
  shape = store.config
  streams = shape["hmc.streams"]
  part = store.read_part(store.num_parts - 1, "u")
  return jnp.asarray(part.reshape(streams, -1, *part.shape[1:])[:, -1])


def series(store: ensembles.Ensemble, name: str) -> np.ndarray:
  """A column as [streams, n, ...], in Monte Carlo order: of `hmc`, or of what was measured on it part by part."""
  streams = store.config["hmc.streams"]
  parts = [store.read_part(i, name) for i in range(store.num_parts)]
  return np.concatenate([p.reshape(streams, -1, *p.shape[1:]) for p in parts], axis=1)


def trajectories(store: ensembles.Ensemble, name: str) -> np.ndarray:
  """A per-trajectory column of `hmc` (delta_h, accepted, plaquette) as [streams, trajectories]."""
  grouped = series(store, name)  # [streams, stored configurations, trajectories between them]
  return grouped.reshape(len(grouped), -1)


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
