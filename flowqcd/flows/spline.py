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
  _, y0, w, h, d0, d1 = _bin(spline, bin_)
  s, (xi, rest) = h / w, _fractions(spline.x, bin_, inside)
  y = y0 + h * xi * (s * xi + d0 * rest) / _denominator(s, d0, d1, xi, rest)
  logderiv = _log_derivative(s, d0, d1, xi, rest)
  return Value(y + (x - inside) * jnp.exp(logderiv), logderiv)


def inverse(spline: Spline, y: Array) -> Value:
  """x(y) and log dx/dy: the inverse of `forward`.

  xi = 2 s eta / (2 s eta + q + r), eta = (y - y_k)/h_k, q = d_k (1-eta) - d_{k+1} eta, r^2 = q^2 + 4 s^2 eta (1-eta).
  """
  inside, bin_ = _locate(spline.y, y)
  x0, _, w, h, d0, d1 = _bin(spline, bin_)
  s, (eta, rest) = h / w, _fractions(spline.y, bin_, inside)
  up, down, q = 2 * s * eta, 2 * s * rest, d0 * rest - d1 * eta
  # The radicand is a sum of squares: at the ends it is a slope's, so that its root has a derivative everywhere.
  root, lower = jnp.sqrt(q * q + up * down), q >= 0
  # Since (r + q)(r - q) = up * down, xi : 1 - xi is up : r + q or r - q : down. Neither sum cancels in its case.
  ratio = jnp.where(lower, up, down) / (root + jnp.where(lower, q, -q))
  major, minor = 1 / (1 + ratio), ratio / (1 + ratio)
  xi, other = jnp.where(lower, minor, major), jnp.where(lower, major, minor)
  logderiv = _log_derivative(s, d0, d1, xi, other)
  return Value(x0 + w * xi + (y - inside) * jnp.exp(-logderiv), -logderiv)


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


def _unit(x: Array) -> Array:
  """x moved into [0, 1], with derivative one at the ends too: that of `jnp.clip` is a half there, and knots are ends."""
  return jnp.where(x < 0, 0, jnp.where(x > 1, 1, x))


def _locate(knots: Array, x: Array) -> tuple[Array, Array]:
  """x moved into [0, 1], and a one-hot bin [K, ...]. Comparisons and sums vectorise; searches and gathers do not."""
  inside = _unit(x)
  above = (inside >= knots[1:-1]).astype(x.dtype)
  one = jnp.ones_like(above[:1])
  return inside, jnp.concatenate([one, above]) - jnp.concatenate([above, 0 * one])


def _pick(one_hot: Array, v: Array) -> Array:
  return jnp.sum(one_hot * v, axis=0)


def _bin(spline: Spline, one_hot: Array) -> tuple[Array, ...]:
  """x_k, y_k, w_k, h_k, d_k, d_{k+1} of the chosen bins."""
  x, y, d = spline.x, spline.y, spline.slope
  each = x[:-1], y[:-1], jnp.diff(x, axis=0), jnp.diff(y, axis=0), d[:-1], d[1:]
  return tuple(_pick(one_hot, v) for v in each)


def _fractions(knots: Array, one_hot: Array, inside: Array) -> tuple[Array, Array]:
  """How far a point is from the lower and from the upper knot of its bin, both in [0, 1] with sum one.

  One less the other would round where a bin is steep and a point near its end.
  """
  width = _pick(one_hot, jnp.diff(knots, axis=0))
  return _unit((inside - _pick(one_hot, knots[:-1])) / width), _unit((_pick(one_hot, knots[1:]) - inside) / width)


def _denominator(s: Array, d0: Array, d1: Array, xi: Array, rest: Array) -> Array:
  """s + (d_k + d_{k+1} - 2 s) xi (1-xi) as a sum of positive terms; rest: 1 - xi."""
  return s * (xi**2 + rest**2) + (d0 + d1) * xi * rest


def _log_derivative(s: Array, d0: Array, d1: Array, xi: Array, rest: Array) -> Array:
  numerator = d1 * xi**2 + 2 * s * xi * rest + d0 * rest**2
  return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(_denominator(s, d0, d1, xi, rest))


def end_ratios(spline: Spline, x: Array, y: Array) -> tuple[Array, Array]:
  """log y/x and log (1-y)/(1-x) of a spline with fixed ends at a point x and its image y, both in [0, 1].

  Ratios of zeros at the ends, from the formula of the end bins with the zero divided out; finite there, and smooth.
  """
  inside, bin_ = _locate(spline.x, x)
  _, _, w, h, d0, d1 = _bin(spline, bin_)
  s, (xi, rest) = h / w, _fractions(spline.x, bin_, inside)
  denominator = _denominator(s, d0, d1, xi, rest)
  first, last = bin_[0] > 0, bin_[-1] > 0
  # Divided only where the bin keeps the denominator away from zero: elsewhere NaN would survive in the gradient.
  ratio = lambda end, a, b: jnp.where(end, 1, a) / jnp.where(end, 1, b)
  low = jnp.where(first, s * (s * xi + d0 * rest) / denominator, ratio(first, y, x))
  high = jnp.where(last, s * (s * rest + d1 * xi) / denominator, ratio(last, 1 - y, 1 - x))
  return jnp.log(low), jnp.log(high)
