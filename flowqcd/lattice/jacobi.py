"""Singular frames of 3 x 3 matrices by Jacobi's rotations, at many sites at once and without calls to LAPACK."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import fusion, group
from flowqcd.types import Array


class SingularFrame(NamedTuple):
  """P and V in SU(3) [3, 3, n], such that P^dag A V is upper triangular, and nearly diagonal."""

  left: Array
  right: Array


def singular_frame(a: Array, sweeps: int = 2) -> SingularFrame:
  """The frame of a [3, 3, n]: singular values fall along the diagonal, real but for the last, with the phase of det a.

  One-sided Jacobi: V is a product of rotations that make columns of a orthogonal in pairs, exactly in SU(3) after any
  number of sweeps; two leave a few percent off the diagonal, and every further one squares that. P are those columns,
  normalised.
  Undefined where a has rank one or less. Hestenes, J. SIAM 6 (1958) 51.
  """

  def sweep(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
    for p, q in ((0, 1), (0, 2), (1, 2)):
      state = fusion.materialise(_rotated(state[0], state[1], p, q))
    return state, None

  start = jnp.swapaxes(a, 0, 1), jnp.broadcast_to(group.identity(3, a.dtype), a.shape)
  (columns, right), _ = lax.scan(sweep, start, length=sweeps)
  first = columns[0] / jnp.sqrt(_norm2(columns[0]))
  second = columns[1] - jnp.sum(first.conj() * columns[1], axis=0) * first
  second = second / jnp.sqrt(_norm2(second))
  return SingularFrame(jnp.stack([first, second, conjugate_cross(first, second)], axis=1), jnp.swapaxes(right, 0, 1))


def _rotated(columns: Array, right: Array, p: int, q: int) -> tuple[Array, Array]:
  """Columns p and q [3, n] of `columns` made orthogonal, the longer one first, and the same rotation of `right`."""
  a, b = columns[p], columns[q]
  difference, overlap = _norm2(a) - _norm2(b), jnp.sum(a.conj() * b, axis=0)
  size = jnp.sqrt(overlap.real**2 + overlap.imag**2)
  phase = jnp.where(size > 0, overlap / jnp.where(size > 0, size, 1), 1)
  # cos 2 theta = difference/root and sin 2 theta = 2 size/root; the larger of cos, sin from the first, the other one from
  # their product, which does not cancel.
  root = jnp.sqrt(difference**2 + 4 * size**2)
  apart, root = root > 0, jnp.where(root > 0, root, 1)
  larger = jnp.sqrt(0.5 + 0.5 * jnp.where(apart, jnp.abs(difference) / root, 1))
  smaller = size / (root * larger)
  cosine, sine = (jnp.where(difference >= 0, x, y) for x, y in ((larger, smaller), (smaller, larger)))

  def rotate(x: Array) -> Array:
    rows = list(x)
    rows[p], rows[q] = cosine * x[p] + sine * phase.conj() * x[q], cosine * x[q] - sine * phase * x[p]
    return jnp.stack(rows)

  return rotate(columns), rotate(right)


def conjugate_cross(a: Array, b: Array) -> Array:
  """(a x b)^*, [3, n]: orthogonal to a and b, and for orthonormal ones their complement in SU(3)."""
  ahead = lambda x, n: jnp.roll(x, -n, axis=0)
  return (ahead(a, 1) * ahead(b, 2) - ahead(a, 2) * ahead(b, 1)).conj()


def _norm2(x: Array) -> Array:
  return jnp.sum(x.real**2 + x.imag**2, axis=0)
