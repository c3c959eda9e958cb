"""Small real matrices on the Lie algebra, one at each site: adjoint action, derivative of the exponential, solves."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.lattice import fusion, group, precision
from flowqcd.types import Array


@cache
def structure_constants(nc: int) -> np.ndarray:
  """f^{abc} in [T^a, T^b] = f^{abc} T^c: [dim, dim, dim], real, antisymmetric in all indices."""
  t = group.basis(nc)
  products = np.einsum("aij,bjk->abik", t, t)
  return -2 * np.einsum("abij,cji->abc", products - products.swapaxes(0, 1), t).real


def adjoint_action(z: Array, nc: int) -> Array:
  """ad_Z for coordinates z [dim, V]: (ad_Z)_{cb} y^b are the coordinates of [Z, y^b T^b]. -> [dim, dim, V]."""
  return jnp.einsum("abc,av->cbv", jnp.asarray(structure_constants(nc), z.dtype), z)


_TERMS = {4: 15, 8: 25}
"""Terms of the series by bytes of the type: 2^n/(n+1)! is below rounding, for |ad_Z| <= 2, that is |Z| <= 1 as a matrix."""
_BLOCK = 5


def dexp(ad: Array) -> Array:
  """(e^{ad} - 1)/ad, a matrix at each site: (d e^Z) e^{-Z} = dexp(ad_Z) dZ and e^{-Z} d e^Z = dexp(-ad_Z) dZ.

  The Taylor series, for |ad| <= 2, in blocks of five powers (Paterson and Stockmeyer): nine products in double precision.
  """
  unit = jnp.eye(ad.shape[-2], dtype=ad.dtype)[..., None]
  powers = [jnp.broadcast_to(unit, ad.shape), ad]
  while len(powers) <= _BLOCK:
    powers.append(fusion.materialise(group.mul(powers[-1], ad)))
  terms = _TERMS[ad.dtype.itemsize]
  # 1/(n+1)! as a running product, which stays in range.
  factors = np.cumprod(1 / np.arange(1.0, terms + 1))
  total = jnp.zeros_like(ad)
  for start in range(terms - _BLOCK, -1, -_BLOCK):
    block = precision.added(float(factors[start + i]) * powers[i] for i in range(_BLOCK))
    total = fusion.materialise(block + (group.mul(powers[_BLOCK], total) if start < terms - _BLOCK else 0))
  return total


class Elimination(NamedTuple):
  """ln det A [V], and x [n, V] with A x = b."""

  logdet: Array
  solution: Array


def eliminate(a: Array, b: Array) -> Elimination:
  """Gauss elimination of a [n, n, V] with one right-hand side b [n, V], without pivoting.

  For a = 1 + E with |E| < 1 the symmetric part is positive definite, so that every pivot is positive and the logarithm
  safe; where that does not hold the result may be NaN.
  """
  index = jnp.arange(a.shape[0])[:, None] == 0

  def eliminated(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
    # Gauss and Jordan, always on the first row and column, which then go to the end: one step in the compiled program.
    a, b = state
    pivot, row, value = a[0, 0], a[0] / a[0, 0], b[0] / a[0, 0]
    factors = jnp.where(index, pivot - 1, a[:, 0])
    a = a - factors[:, None] * row
    b = b - factors * value
    return (jnp.roll(a, (-1, -1), (0, 1)), jnp.roll(b, -1, 0)), pivot

  (_, solution), pivots = lax.scan(eliminated, (a, b), length=len(a))
  return Elimination(jnp.sum(jnp.log(pivots), axis=0), solution)
