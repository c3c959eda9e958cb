"""Sites: extents, flattening, shifts, parity and gauge transformations.

Kernels work on *flat* arrays, all sites on one last axis of length V. With the lattice axes apart, the innermost loop
of a 4^4 lattice has four steps and a colour product runs at a quarter of the speed (BUILD_NOTES.md, "layout").
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from flowqcd.lattice import layout, precision
from flowqcd.types import Array

Extents, ShapeError = layout.Extents, layout.ShapeError
extents, check = layout.extents, layout.check


def flatten(u: Array) -> Array:
  """Links [Nd, Nc, Nc, *L] -> [Nd, Nc, Nc, V], sites in row-major order."""
  extents(u)
  return u.reshape(u.shape[:3] + (-1,))


def unflatten(x: Array, lattice: Extents) -> Array:
  """Flat field [..., V] -> [..., *L]."""
  return x.reshape(x.shape[:-1] + tuple(lattice))


def shift(x: Array, lattice: Extents, mu: int, steps: int = 1) -> Array:
  """Value at the neighbour: y(s) = x(s + steps * mu), periodic. x: [..., V]."""
  axis = mu - len(lattice)
  return jnp.roll(unflatten(x, lattice), -steps, axis=axis).reshape(x.shape)


def parity(lattice: Extents) -> np.ndarray:
  """(sum_mu x_mu) mod 2 at every site, integers of shape L."""
  return np.indices(lattice).sum(axis=0) % 2


def coordinates(lattice: Extents) -> np.ndarray:
  """Site coordinates, integers [Nd, *L]."""
  return np.indices(lattice)


@precision.compiled()
def gauge_transform(u: Array, g: Array) -> Array:
  """U'_mu(x) = g(x) U_mu(x) g(x+mu)^dag. u: [Nd, Nc, Nc, *L], g: [Nc, Nc, *L]."""
  lattice = extents(u)
  flat, g = flatten(u), g.reshape(g.shape[:2] + (-1,))
  ahead = jnp.stack([shift(g, lattice, mu) for mu in range(len(lattice))])
  moved = jnp.einsum("ijv,mjkv,mlkv->milv", g, flat, ahead.conj())
  return unflatten(moved, lattice)


@precision.of_input
def translate(x: Array, offset: tuple[int, ...]) -> Array:
  """y(s) = x(s - offset) on the last len(offset) axes, periodic."""
  axes = tuple(range(-len(offset), 0))
  return jnp.roll(x, offset, axis=axes)


@precision.of_input
def from_sites_first(u: Array) -> Array:
  """Links [*L, Nd, Nc, Nc] of other codes -> [Nd, Nc, Nc, *L]."""
  return jnp.moveaxis(u, (-3, -2, -1), (0, 1, 2))


@precision.of_input
def to_sites_first(u: Array) -> Array:
  """Links [Nd, Nc, Nc, *L] -> [*L, Nd, Nc, Nc]."""
  return jnp.moveaxis(u, (0, 1, 2), (-3, -2, -1))
