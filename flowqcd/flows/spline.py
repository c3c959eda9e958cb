"""Monotone rational-quadratic splines of the unit interval or circle; Durkan et al., arXiv:1906.04032.

K bins with widths w, heights h (both sum to one) and slopes d at the knots. In a bin, xi = (x - x_k)/w_k, s = h_k/w_k:
y = y_k + h_k (s xi^2 + d_k xi (1-xi)) / (s + (d_k + d_{k+1} - 2 s) xi (1-xi)). Zero parameters give the identity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowqcd.types import Array

MIN_BIN = 1e-3
"""Least width and height of a bin, and least slope: they bound the derivative away from zero and infinity."""


class Spline(NamedTuple):
  """Knots x, y [K+1, ...], from 0 to 1, and slopes [K+1, ...]; offset [...] of a circular spline, zero otherwise."""

  x: Array
  y: Array
  slope: Array
  offset: Array


class Value(NamedTuple):
  """y and log dy/dx, in the shape of x."""

  y: Array
  logderiv: Array


def num_parameters(bins: int) -> int:
  """3 K + 1: widths, heights and K+1 slopes, or K slopes and an offset."""
  return 3 * bins + 1


def make(parameters: Array, circular: bool = False) -> Spline:
  """Spline from unconstrained parameters [3 K + 1, ...].

  Fixed ends: K widths, K heights, K + 1 slopes. circular: the last one is an offset instead, x -> y + offset (mod 1), and
  the slope at both ends is the same. Raises ValueError for another number of parameters.
  """
  count = parameters.shape[0]
  if count % 3 != 1 or count < 4:
    raise ValueError(f"a spline needs 3 K + 1 parameters, not {count}")
  k = count // 3
  widths, heights, rest = parameters[:k], parameters[k : 2 * k], parameters[2 * k :]
  slopes = jnp.concatenate([rest[:-1], rest[:1]]) if circular else rest
  offset = rest[-1] if circular else jnp.zeros_like(rest[-1])
  # softplus(v + log(e^{1-m} - 1)) + m is one at v = 0.
  shift = jnp.log(jnp.expm1(1 - MIN_BIN)).astype(parameters.dtype)
  return Spline(_knots(widths), _knots(heights), MIN_BIN + jax.nn.softplus(slopes + shift), offset)


def _knots(logits: Array) -> Array:
  k = logits.shape[0]
  if k * MIN_BIN >= 1:
    raise ValueError(f"at most {int(1 / MIN_BIN) - 1} bins, not {k}")
  sizes = MIN_BIN + (1 - k * MIN_BIN) * jax.nn.softmax(logits, axis=0)
  inner = jnp.cumsum(sizes, axis=0)[:-1]
  ends = jnp.zeros_like(logits[:1])
  # The last knot is one exactly, not a sum that rounds.
  return jnp.concatenate([ends, inner, ends + 1])


def forward(spline: Spline, x: Array) -> Value:
  """y(x) and log dy/dx, from [0, 1] to itself; beyond the ends it goes on in a straight line. x: [...]."""
  inside, bin_ = _locate(spline.x, x)
  x0, w, y0, h, d0, d1 = _bin(spline, bin_)
  s = h / w
  # Clipped before the formula: its value beyond the ends would overflow, and a NaN there survives in gradients.
  xi = jnp.clip((inside - x0) / w, 0, 1)
  product = xi * (1 - xi)
  denominator = s + (d0 + d1 - 2 * s) * product
  y = y0 + h * (s * xi**2 + d0 * product) / denominator
  logderiv = _log_derivative(s, d0, d1, xi, product, denominator)
  return Value(y + (x - inside) * jnp.exp(logderiv), logderiv)


def inverse(spline: Spline, y: Array) -> Value:
  """x(y) and log dx/dy: the inverse of `forward`."""
  inside, bin_ = _locate(spline.y, y)
  x0, w, y0, h, d0, d1 = _bin(spline, bin_)
  s = h / w
  eta = jnp.clip((inside - y0) / h, 0, 1)
  mixed = d0 + d1 - 2 * s
  a = s - d0 + eta * mixed
  b = d0 - eta * mixed
  c = -s * eta
  # The root in [0, 1], in the form without cancellation; the discriminant is positive for monotone bins.
  root = jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0))
  xi = jnp.clip(2 * -c / (b + root), 0, 1)
  product = xi * (1 - xi)
  logderiv = _log_derivative(s, d0, d1, xi, product, s + mixed * product)
  x = x0 + w * xi + (y - inside) * jnp.exp(-logderiv)
  return Value(x, -logderiv)


def circular_forward(spline: Spline, x: Array) -> Value:
  """The spline on the circle: x modulo one, then the offset; y in [0, 1)."""
  y, logderiv = forward(spline, _modulo_one(x))
  return Value(_modulo_one(y + spline.offset), logderiv)


def circular_inverse(spline: Spline, y: Array) -> Value:
  """The inverse of `circular_forward`; x in [0, 1)."""
  x, logderiv = inverse(spline, _modulo_one(y - spline.offset))
  return Value(_modulo_one(x), logderiv)


def _modulo_one(x: Array) -> Array:
  return x - jnp.floor(x)


def _locate(knots: Array, x: Array) -> tuple[Array, Array]:
  """x moved into [0, 1], and a one-hot bin [K, ...]. Comparisons and sums vectorise; searches and gathers do not."""
  inside = jnp.clip(x, 0, 1)
  above = (inside >= knots[1:-1]).astype(x.dtype)
  one = jnp.ones_like(above[:1])
  return inside, jnp.concatenate([one, above]) - jnp.concatenate([above, 0 * one])


def _bin(spline: Spline, one_hot: Array) -> tuple[Array, ...]:
  pick = lambda v: jnp.sum(one_hot * v, axis=0)
  x, y, d = spline.x, spline.y, spline.slope
  return pick(x[:-1]), pick(jnp.diff(x, axis=0)), pick(y[:-1]), pick(jnp.diff(y, axis=0)), pick(d[:-1]), pick(d[1:])


def _log_derivative(s: Array, d0: Array, d1: Array, xi: Array, product: Array, denominator: Array) -> Array:
  numerator = d1 * xi**2 + 2 * s * product + d0 * (1 - xi) ** 2
  return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(denominator)


def end_ratios(spline: Spline, x: Array, y: Array) -> tuple[Array, Array]:
  """log y/x and log (1-y)/(1-x) of a spline with fixed ends at a point x and its image y, both in [0, 1].

  Ratios of zeros at the ends, from the formula of the end bins with the zero divided out; finite there, and smooth.
  """
  inside, bin_ = _locate(spline.x, x)
  x0, w, _, h, d0, d1 = _bin(spline, bin_)
  s, xi = h / w, jnp.clip((inside - x0) / w, 0, 1)
  denominator = s + (d0 + d1 - 2 * s) * xi * (1 - xi)
  first, last = bin_[0] > 0, bin_[-1] > 0
  # Divided only where the bin keeps the denominator away from zero: elsewhere NaN would survive in the gradient.
  ratio = lambda end, a, b: jnp.where(end, 1, a) / jnp.where(end, 1, b)
  low = jnp.where(first, s * (s * xi + d0 * (1 - xi)) / denominator, ratio(first, y, x))
  high = jnp.where(last, s * (s * (1 - xi) + d1 * xi) / denominator, ratio(last, 1 - y, 1 - x))
  return jnp.log(low), jnp.log(high)
