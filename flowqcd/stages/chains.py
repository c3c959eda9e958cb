"""Markov chains of any kernel in independent streams, stored part by part: HMC's and others'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed, hosts
from flowqcd.io import ensembles
from flowqcd.mcmc import hmc
from flowqcd.models import priors
from flowqcd.runs import folder
from flowqcd.runs.folder import Run
from flowqcd.runs.progress import Progress
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.theory import observables
from flowqcd.types import Array, Kernel, Key

Columns = Callable[[Any], dict[str, Array]]
"""What a kernel reports of a step -> what is stored of it, beside the plaquette."""


def fill(
  run: Run, theory: Theory, name: str, kernel: Kernel, columns: Columns, plan: HMC, salt: int
) -> ensembles.Ensemble:
  """Fill the ensemble `name` with the plan's streams, lengths and thinning, from where it stands.

  Stored are every thin-th configuration of each stream, and plaquette and `columns` of all steps. A part holds `thin` steps
  of all streams, or a multiple, and ends with the configurations that the next one starts from; where a chain has been
  asked for more steps than before, the last part may be shorter. salt: makes its random numbers those of no other ensemble;
  it uses salt and salt + 1. Raises ValueError where the chain is longer than the plan.
  """
  store, advance = run.store(name), _advance(run.key(salt), math.prod(theory.lattice), kernel, columns, plan)
  total, done = plan.trajectories, len(store) // plan.streams * plan.thin
  folder.require_growth("hmc.trajectories", total, done, str(store.path))
  per_part = plan.thin * _parts_together(plan)
  if done:
    # As they were: the end does not depend on when a run was stopped.
    per_part = len(store.read_part(0, "u")) // plan.streams * plan.thin
  u = _last(store) if done else _thermalised(run.key(salt + 1), run.dtype, theory, name, advance, plan)
  progress = Progress(f"{name} steps", total, done)
  while done < total:
    count, clock = min(per_part, total - done), time.process_time()
    u, out = advance(u, plan.thermalisation + done, count)
    store.append(out, {"cpu_seconds": hosts.summed(time.process_time() - clock)})
    done += count
    progress.update(done, _note(out))
  return store


def _note(out: Mapping[str, np.ndarray]) -> str:
  """Of a part, for the line of progress."""
  note = f"acceptance {out['accepted'].mean():.3f}" if "accepted" in out else ""
  failed = int((~np.isfinite(out["delta_h"])).sum()) if "delta_h" in out else 0
  return f"{note}, {failed} without a finite dH" if failed else note


def _parts_together(plan: HMC) -> int:
  """How many stored configurations per stream go in one part: a divisor of their number, at most 8.

  Where possible of the thermalisation's too, so that one compiled program serves both.
  """
  stored, discarded = plan.trajectories // plan.thin, plan.thermalisation
  return math.gcd(stored, 8 if discarded % plan.thin else math.gcd(discarded // plan.thin, 8))


_CACHED_SITES = 512
"""Of the streams that a CPU's core advances together: more leave its cache, and wait for the solver that takes longest."""


def _together(streams: int, volume: int) -> int:
  """How many streams are vectorised on each device: all of its share on accelerators, which want many."""
  share = -(-streams // distributed.places())
  return share if jax.default_backend() != "cpu" else max(1, min(share, _CACHED_SITES // volume))


def _advance(root: Key, volume: int, kernel: Kernel, columns: Columns, plan: HMC):
  """(u [streams], first step, count) -> (u, arrays by name), all streams of `volume` sites each."""
  thin = plan.thin

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

  mapped = distributed.parallel_map(one_stream, _together(plan.streams, volume), num_shared=1)

  def advance(u: Array, first: int, count: int) -> tuple[Array, dict[str, np.ndarray]]:
    groups = (first + jnp.arange(count)).reshape(-1, min(thin, count))
    u, out = jax.device_get(mapped(groups, u, jnp.arange(plan.streams)))
    # [streams, kept, ...] -> one row of an ensemble per kept configuration and stream.
    return u, {name: x.reshape(-1, *x.shape[2:]) for name, x in out.items()}

  return advance


def _thermalised(root: Key, dtype: jnp.dtype, theory: Theory, name: str, advance, plan: HMC) -> Array:
  """Haar-random starts after the thermalisation."""
  prior = priors.haar(theory.nc, theory.lattice, dtype)
  keys = distributed.item_keys(root, 0, 0, plan.streams)
  u = jax.jit(jax.vmap(prior.sample))(keys)
  piece = plan.thin * _parts_together(plan)
  progress = Progress(f"{name} thermalisation", plan.thermalisation)
  done = 0
  while done < plan.thermalisation:
    count = min(piece, plan.thermalisation - done)
    # Steps come in groups of the thinning; what is left over is a group of its own, and another program.
    count = count - count % plan.thin or count
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
