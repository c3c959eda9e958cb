"""A sampler on a theory, and estimates from independent items of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd import distributed
from flowqcd.analysis import statistics, weights
from flowqcd.lattice import sites
from flowqcd.models import priors
from flowqcd.types import Array, Kernel, Key

Measurements = dict[str, Array]
Estimates = dict[str, statistics.Estimate]
Draw = Callable[[Key], Measurements]
"""One independent item: of a chain, means over a stream; of weighted samples, observables, and log_w among them."""
Start = Callable[[Key], Array]
"""Links [Nd, Nc, Nc, *L] that a chain starts from."""

LATTICE = (4, 4)


def haar(nc: int, lattice: sites.Extents) -> Start:
  """Haar-random links, where chains start."""
  return priors.haar(nc, lattice, jnp.complex128).sample


class Case(NamedTuple):
  """A sampler on a theory.

  draw: one item; estimate: {name: [items, ...]} of all items -> estimates; known: exact answers, or the name of a case that
  is a reference and has the rest. chunk: items that run together on a device.
  """

  name: str
  draw: Draw
  estimate: Callable[[Mapping[str, np.ndarray]], Estimates]
  known: Mapping[str, float] | str
  chunk: int = 16


class Sampled(NamedTuple):
  """Estimates from `num` items, and the seconds that these took, without compiling."""

  estimates: Estimates
  num: int
  seconds: float


def sample(case: Case, key: Key, seconds: float) -> Sampled:
  """Items until the time is used, two batches at least; item i has the key of i, so that a number gives the same again."""
  run = distributed.parallel_map(case.draw, case.chunk)
  size = case.chunk * jax.local_device_count()
  batch = lambda i: run(distributed.item_keys(key, 0, i * size, size))
  parts, clock = [batch(0)], time.monotonic()  # The first one compiles.
  while len(parts) < 2 or time.monotonic() - clock < seconds:
    parts.append(batch(len(parts)))
  found = {name: np.concatenate([part[name] for part in parts]).astype(float) for name in parts[0]}
  return Sampled(case.estimate(found), len(parts) * size, time.monotonic() - clock)


def _stream_means(found: Mapping[str, np.ndarray]) -> Estimates:
  return {name: statistics.mean_of_streams(x[:, None]) for name, x in found.items()}


def _reweighted(found: Mapping[str, np.ndarray]) -> Estimates:
  log_w = found["log_w"]
  means = {n: weights.reweighted_mean_jackknife(log_w, x) for n, x in found.items() if n != "log_w"}
  return {"ln Z": weights.log_z(log_w), **means}


def chain(
  name: str,
  kernel: Kernel,
  start: Start,
  measure: Callable[[Array], Measurements],
  known: Mapping[str, float] | str,
  steps: int = 160,
  chunk: int = 16,
) -> Case:
  """A Markov chain from `start`; an item is a stream, of which the first fifth is thermalisation."""

  def draw(key: Key) -> Measurements:
    first, second, third = jax.random.split(key, 3)
    state = kernel.init(first, start(second))

    def step(state, key):
      state = kernel.step(key, state).state
      return state, measure(state.u)

    keys = jax.random.split(third, steps)
    state, _ = lax.scan(lambda s, k: (kernel.step(k, s).state, None), state, keys[: steps // 5])
    _, found = lax.scan(step, state, keys[steps // 5 :])
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), found)

  return Case(name, draw, _stream_means, known, chunk)


def weighted(name: str, draw: Draw, known: Mapping[str, float] | str, chunk: int = 64) -> Case:
  """Independent weighted samples."""
  return Case(name, draw, _reweighted, known, chunk)
