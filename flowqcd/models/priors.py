"""Distributions that flows start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from flowqcd.lattice import group, sites
from flowqcd.types import Array, Key


class Prior(NamedTuple):
  """sample: key -> links [Nd, Nc, Nc, *L].  log_prob: links -> log density with respect to Haar, a scalar."""

  sample: Callable[[Key], Array]
  log_prob: Callable[[Array], Array]


def haar(nc: int, lattice: sites.Extents, dtype: jnp.dtype) -> Prior:
  """Independent Haar-random links: log density 0. arXiv:2208.03832, sec. 3.1."""
  volume = 1
  for extent in lattice:
    volume *= extent

  def sample(key: Key) -> Array:
    return sites.unflatten(group.haar(key, (len(lattice), nc, nc, volume), dtype), lattice)

  return Prior(sample, lambda u: jnp.zeros((), u.real.dtype))
