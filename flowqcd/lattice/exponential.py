"""The exponential of antihermitian matrices, smooth everywhere.

By Cayley and Hamilton e^X = a + b X + c X^2 with invariant coefficients. Their Taylor series obeys a recursion of
scalars, so that there is no eigenvalue, no division by a gap, and a derivative that is right at coinciding eigenvalues.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import group
from flowqcd.types import Array

_TERMS = {4: 11, 8: 19}
"""Taylor terms by bytes of the real type: 1/n! is below rounding for arguments of norm at most one."""
_MAX_SQUARINGS = 10
"""Arguments up to norm 2^10 keep full accuracy; no lattice algorithm comes near."""


def exp(x: Array) -> Array:
  """e^x for x in the Lie algebra. [..., Nc, Nc, V], Nc = 1, 2 or 3; traceless for Nc > 1.

  Relative error a few ulps times max(1, |x|). Raises ValueError for other Nc.
  """
  nc = x.shape[-2]
  if nc == 1:
    return jnp.exp(x)
  if nc not in (2, 3):
    raise ValueError(f"the exponential is written for Nc = 1, 2, 3, not Nc = {nc}")
  square = group.mul(x, x)
  unit = group.identity(nc, x.dtype)
  if nc == 2:
    a, b = _coefficients_2(_half_trace(square))
    return a[..., None, None, :] * unit + b[..., None, None, :] * x
  # det x = tr x^3 / 3 is imaginary for antihermitian x.
  delta = (group.trace(group.mul(square, x)) / 3).imag
  a, b, c = _coefficients_3(_half_trace(square), delta)
  wide = [z[..., None, None, :] for z in (a, b, c)]
  return wide[0] * unit + wide[1] * x + wide[2] * square


def _half_trace(square: Array) -> Array:
  """p = tr x^2 / 2, real and negative."""
  return 0.5 * group.trace(square).real


def _halvings(p: Array) -> Array:
  """How often x has to be halved for its norm sqrt(-2 p) to be at most one."""
  norm2 = lax.stop_gradient(jnp.maximum(-2 * p, 1e-30))
  return jnp.clip(jnp.ceil(0.5 * jnp.log2(norm2)), 0, _MAX_SQUARINGS)


def _coefficients_2(p: Array) -> tuple[Array, Array]:
  """(a, b) of e^x = a + b x for x^2 = p: a = cos, b = sin/angle, as series in p followed by doubling."""
  n = _halvings(p)
  q = p * 4.0**-n
  a, b = jnp.ones_like(p), jnp.ones_like(p)
  term = jnp.ones_like(p)
  for k in range(1, _TERMS[p.dtype.itemsize] // 2 + 2):
    term = term * q / ((2 * k - 1) * (2 * k))
    a, b = a + term, b + term / (2 * k + 1)
  b = b * 2.0**-n
  for i in range(_MAX_SQUARINGS):
    more = i < n
    a, b = jnp.where(more, a * a + b * b * p, a), jnp.where(more, 2 * a * b, b)
  return a, b


def _coefficients_3(p: Array, delta: Array) -> tuple[Array, Array, Array]:
  """(a, b, c) of e^x = a + b x + c x^2 for x^3 = p x + i delta; halved first, then squared back."""
  n = _halvings(p)
  d = 1j * delta
  q, e = p * 4.0**-n, d * 8.0**-n
  # Powers of y = x 2^-n: y^k = u + v y + w y^2, so y^{k+1} = e w + (u + q w) y + v y^2.
  u, v, w = jnp.ones_like(d), jnp.zeros_like(d), jnp.zeros_like(d)
  a, b, c = u, v, w
  factor = 1.0
  for k in range(1, _TERMS[p.dtype.itemsize] + 1):
    factor /= k
    u, v, w = e * w, u + q * w, v
    a, b, c = a + factor * u, b + factor * v, c + factor * w
  b, c = b * 2.0**-n, c * 4.0**-n
  for i in range(_MAX_SQUARINGS):
    more = i < n
    # (a + b x + c x^2)^2 with x^3 = p x + d and x^4 = p x^2 + d x.
    a, b, c = (
      jnp.where(more, a * a + 2 * b * c * d, a),
      jnp.where(more, 2 * a * b + 2 * b * c * p + c * c * d, b),
      jnp.where(more, b * b + 2 * a * c + c * c * p, c),
    )
  return a, b, c
