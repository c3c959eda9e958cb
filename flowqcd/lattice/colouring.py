"""Colours of the odd sites such that sites two hops apart differ, so that a matrix of two hops is triangular in colours."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.lattice import checkerboard
from flowqcd.lattice.sites import Extents


@cache
def odd_neighbours(lattice: Extents) -> np.ndarray:
  """Odd slot next to each even slot, [2 Nd, V/2]: forward and backward along each direction. Raises ParityError."""
  checkerboard.check(lattice)
  slots = np.arange(int(np.prod(lattice)) // 2)
  with jax.ensure_compile_time_eval():
    shifted = [
      checkerboard.shift(jnp.asarray(slots), lattice, mu, sign, 0) for mu in range(len(lattice)) for sign in (1, -1)
    ]
    return np.stack([np.asarray(x) for x in shifted])


@cache
def two_hop(lattice: Extents) -> np.ndarray:
  """Greedy colours of the odd slots, integers [V/2]: odd neighbours of one even site that differ have different colours.

  The 2 Nd neighbours of a site need that many colours; greedy colouring finds 4 in two dimensions and 8 in four where 4
  divides the extents. Raises ParityError for odd extents.
  """
  stars = odd_neighbours(tuple(lattice)).T
  colours = np.full(len(stars), -1)
  star_of: list[list[int]] = [[] for _ in colours]
  for y, star in enumerate(stars):
    for x in star:
      star_of[x].append(y)
  for x in range(len(colours)):
    taken = set(colours[stars[star_of[x]].ravel()])
    colours[x] = next(c for c in range(len(colours)) if c not in taken)
  return colours
