"""Markov chains of any kernel in independent streams, stored part by part: HMC's and others'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed
from flowqcd.io import ensembles
from flowqcd.mcmc import hmc
from flowqcd.models import priors
from flowqcd.runs import environment, settings, systems
from flowqcd.theory import observables
from flowqcd.types import Array, Kernel

Columns = Callable[[Any], dict[str, Array]]
"""What a kernel reports of a step -> what is stored of it, beside the plaquette."""


def fill(config: settings.Experiment, name: str, kernel: Kernel, columns: Columns, salt: int) -> ensembles.Ensemble:
  """Fill the ensemble `name` with streams, lengths and thinning of config.hmc, from where it stands.

  Stored are every thin-th configuration of each stream, and plaquette and `columns` of all steps. A part holds `thin` steps
  of all streams, or a multiple, and ends with the configurations that the next one starts from. salt: makes its random
  numbers those of no other ensemble; it uses salt and salt + 1.
  """
  folder, dtype = environment.claim(config), systems.dtype(config.precision)
  store = environment.store(config, folder / name)
  advance = _advance(config, kernel, columns, salt)
  total, per_part = config.hmc.trajectories, config.hmc.thin * _parts_together(config)
  done = store.num_parts * per_part
  u = _last(store) if done else _thermalised(config, name, advance, dtype, salt + 1)
  progress = environment.Progress(f"{name} steps", total, done)
  while done < total:
    clock = time.process_time()
    u, out = advance(u, config.hmc.thermalisation + done, per_part)
    store.append(out, {"cpu_seconds": time.process_time() - clock})
    done += per_part
    note = f"acceptance {out['accepted'].mean():.3f}" if "accepted" in out else ""
    progress.update(done, note)
  return store


def _parts_together(config: settings.Experiment) -> int:
  """How many stored configurations per stream go in one part: a divisor of their number, at most 8.

  Where possible of the thermalisation's too, so that one compiled program serves both.
  """
  stored, discarded = config.hmc.trajectories // config.hmc.thin, config.hmc.thermalisation
  return math.gcd(stored, 8 if discarded % config.hmc.thin else math.gcd(discarded // config.hmc.thin, 8))


def _advance(config: settings.Experiment, kernel: Kernel, columns: Columns, salt: int):
  """(u [streams], first step, count) -> (u, arrays by name), all streams at once."""
  thin, root = config.hmc.thin, jax.random.fold_in(jax.random.key(config.seed), salt)

  def one_stream(steps: Array, u: Array, stream: Array) -> tuple[Array, dict[str, Array]]:
    def step(u: Array, index: Array) -> tuple[Array, dict[str, Array]]:
      key = jax.random.fold_in(jax.random.fold_in(root, index), stream)
      state, info = kernel.step(key, hmc.State(u))
      return state.u, {"plaquette": observables.mean_plaquette(state.u)} | columns(info)

    def block(u: Array, group: Array) -> tuple[Array, tuple[Array, dict[str, Array]]]:
      u, rows = jax.lax.scan(step, u, group)
      return u, (u, rows)

    u, (kept, rows) = jax.lax.scan(block, u, steps)
    return u, {"u": kept} | rows

  chunk = -(-config.hmc.streams // jax.local_device_count())
  mapped = distributed.parallel_map(one_stream, chunk, num_shared=1)

  def advance(u: Array, first: int, count: int) -> tuple[Array, dict[str, np.ndarray]]:
    groups = (first + jnp.arange(count)).reshape(-1, min(thin, count))
    u, out = jax.device_get(mapped(groups, u, jnp.arange(config.hmc.streams)))
    # [streams, kept, ...] -> one row of an ensemble per kept configuration and stream.
    return u, {name: x.reshape(-1, *x.shape[2:]) for name, x in out.items()}

  return advance


def _thermalised(config: settings.Experiment, name: str, advance, dtype: jnp.dtype, salt: int) -> Array:
  """Haar-random starts after the thermalisation."""
  theory = config.theory
  prior = priors.haar(theory.nc, theory.lattice, dtype)
  keys = distributed.item_keys(jax.random.fold_in(jax.random.key(config.seed), salt), 0, 0, config.hmc.streams)
  u = jax.jit(jax.vmap(prior.sample))(keys)
  piece = config.hmc.thin * _parts_together(config)
  progress = environment.Progress(f"{name} thermalisation", config.hmc.thermalisation)
  done = 0
  while done < config.hmc.thermalisation:
    count = min(piece, config.hmc.thermalisation - done)
    # Steps come in groups of the thinning; what is left over is a group of its own, and another program.
    count = count - count % config.hmc.thin or count
    u, _ = advance(u, done, count)
    done += count
    progress.update(done)
  return u


def _last(store: ensembles.Ensemble) -> Array:
  """The configurations [streams, ...] that the last part ended with."""
  streams = store.config["hmc.streams"]
  part = store.read_part(store.num_parts - 1, "u")
  return jnp.asarray(part.reshape(streams, -1, *part.shape[1:])[:, -1])


def series(store: ensembles.Ensemble, name: str) -> np.ndarray:
  """A column as [streams, n, ...], in Monte Carlo order: of a chain, or of what was measured on it part by part."""
  streams = store.config["hmc.streams"]
  parts = [store.read_part(i, name) for i in range(store.num_parts)]
  return np.concatenate([p.reshape(streams, -1, *p.shape[1:]) for p in parts], axis=1)


def steps(store: ensembles.Ensemble, name: str) -> np.ndarray:
  """A column that a chain has of every step (plaquette, accepted, delta_h) as [streams, steps]."""
  grouped = series(store, name)  # [streams, stored configurations, steps between them]
  return grouped.reshape(len(grouped), -1)
