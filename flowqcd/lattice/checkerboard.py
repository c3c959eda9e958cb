"""Even and odd sites as two compact fields, for even/odd preconditioning.

Pairs of neighbours along the last direction share one slot, so a field [..., V] becomes two of [..., V/2]; slot z' of
parity p holds the site z = 2 z' + (sum of the other coordinates + p) mod 2.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.lattice.sites import Extents
from flowqcd.types import Array


class ParityError(ValueError):
  """The lattice has no consistent even/odd colouring."""


def check(lattice: Extents) -> None:
  """Raise ParityError unless all extents are even: an odd one makes neighbours of equal parity at the seam."""
  if any(n % 2 for n in lattice):
    raise ParityError(f"even/odd needs even extents in every direction, not {tuple(lattice)}")


def _offset(lattice: Extents, parity: int) -> np.ndarray:
  """0 or 1 by slot [*L[:-1], 1]: which of the two sites sharing a slot has this parity."""
  return (np.indices(lattice[:-1]).sum(axis=0)[..., None] + parity) % 2


def split(x: Array, lattice: Extents) -> tuple[Array, Array]:
  """(even, odd) parts of a flat field [..., V], each [..., V/2]. Raises ParityError."""
  check(lattice)
  pairs = x.reshape(x.shape[:-1] + (*lattice[:-1], lattice[-1] // 2, 2))
  half = x.shape[:-1] + (-1,)
  first = _offset(lattice, 0) == 0
  even = jnp.where(first, pairs[..., 0], pairs[..., 1])
  odd = jnp.where(first, pairs[..., 1], pairs[..., 0])
  return even.reshape(half), odd.reshape(half)


def merge(even: Array, odd: Array, lattice: Extents) -> Array:
  """Inverse of split: [..., V/2] twice -> [..., V]."""
  check(lattice)
  slots = even.shape[:-1] + (*lattice[:-1], lattice[-1] // 2)
  even, odd = even.reshape(slots), odd.reshape(slots)
  first = _offset(lattice, 0) == 0
  pairs = jnp.stack([jnp.where(first, even, odd), jnp.where(first, odd, even)], axis=-1)
  return pairs.reshape(even.shape[: -len(lattice)] + (-1,))


def shift(x: Array, lattice: Extents, mu: int, steps: int, parity: int) -> Array:
  """Neighbour at distance steps = +1 or -1, seen from the sites of `parity`; x lives on the other parity.

  x: [..., V/2] -> [..., V/2].
  """
  slots = (*lattice[:-1], lattice[-1] // 2)
  field = x.reshape(x.shape[:-1] + slots)
  moved = jnp.roll(field, -steps, axis=mu - len(lattice))
  if mu == len(lattice) - 1:
    # Along the last direction the neighbour sits in the same slot for one of the two offsets.
    same = _offset(lattice, parity) == (0 if steps > 0 else 1)
    moved = jnp.where(same, field, moved)
  return moved.reshape(x.shape)


def neighbours(lattice: Extents, mu: int, steps: int, parity: int) -> np.ndarray:
  """Slots of the neighbours at distance steps, on the other parity, seen from the sites of `parity`: int [V/2].

  x[..., neighbours(...)] is shift(x, ...).
  """
  with jax.ensure_compile_time_eval():
    return np.asarray(shift(jnp.arange(math.prod(lattice) // 2), lattice, mu, steps, parity))
