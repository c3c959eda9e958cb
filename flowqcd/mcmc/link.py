r"""A flow for one link among its neighbours: matrices U in SU(3) whose density is that of e^{s Re tr U A}, nearly.

Nearly is enough, since the flow's own density q is known: a link of it is accepted or rejected exactly. With P and V such
that P^dag A V = A' is upper triangular and almost diagonal, X = V^dag U P is in SU(3), has the density of e^{s Re tr X A'},
and is the same in every gauge, up to phases and what is off the diagonal. Its first row y is a point on the sphere S^5, and
the other two are an element of SU(2) in the plane orthogonal to y. With

  y = (rho e^{i alpha}, sqrt(t_2) e^{i theta_2}, sqrt(t_3) e^{i theta_3}),  t_i = eta_i (1 + rho),  rho = 1 - eta_2 - eta_3,

s Re tr X A' = s Re (y A')_1 + a x_0, where x_0 = 1 - delta is half the trace of an SU(2) element, of density e^{a
x_0} given y. For equal singular values, and alpha at its mode, the exponent is linear in eta_i, so that these are
made exponential, cut off at eta_2 + eta_3 = 1; alpha is normal around the mode, of a width that depends on rho, and
cut off half a circle away; (a delta)^{1/3} is normal (Wilson and Hilferty) or, for a < 2, delta exponential;
directions are uniform. Normalised Haar measure is (dalpha/2pi) (2 dt_2 dt_3) (dtheta_2/2pi) (dtheta_3/2pi) (2/pi)
sqrt(delta (2 - delta)) ddelta and that of the direction.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erf, erfinv

from flowqcd.lattice import fusion, group, jacobi, precision
from flowqcd.types import Array, Key


class Latent(NamedTuple):
  """Where links come from: quantiles of eta_2, eta_3, alpha and delta, uniform in (0, 1), [4, n]; the phases e^{i theta_i},
  uniform on circles, [2, n]; directions, uniform on a sphere, [3, n]."""

  quantiles: Array
  phases: Array
  direction: Array


class Frame(NamedTuple):
  """What depends on the staples [3, 3, n] and s: P, V, A', s itself, the mode of alpha, its inverse variance at rho = 1,
  rates of eta_i [2, n]."""

  left: Array
  right: Array
  block: Array
  strength: Array
  mode: Array
  precision: Array
  rates: Array


class Weighted(NamedTuple):
  """A link in the frame, X [3, 3, n], and log w = s Re tr U A - log q [n], with q relative to normalised Haar measure, so
  that the mean of w under q is the integral of e^{s Re tr U A} over the group. -inf where the flow left the group."""

  x: Array
  log_w: Array


class Located(NamedTuple):
  """A link's latent variables, and its log weight."""

  latent: Latent
  log_w: Array


def draw(key: Key, n: int, dtype: jnp.dtype) -> Latent:
  """n independent latent variables for links of a complex dtype."""
  r = jax.random.uniform(key, (8, n), jnp.finfo(dtype).dtype)
  height = 2 * r[4] - 1
  around = _unit(2 * jnp.pi * r[5]) * jnp.sqrt(1 - height * height)
  return Latent(r[:4], _unit(2 * jnp.pi * r[6:]), jnp.stack([around.real, around.imag, height]))


def reflect(latent: Latent) -> Latent:
  """The opposite point: every quantile r -> 1 - r, phases and directions -> minus themselves. Keeps the latent measure."""
  return Latent(1 - latent.quantiles, -latent.phases, -latent.direction)


def frame(staple: Array, s: float | Array, sweeps: int = 2) -> Frame:
  """Frame of the staple sums A [3, 3, n] at s = beta/Nc >= 0. sweeps: of Jacobi's rotations, see `jacobi`.

  NaN where A has rank one or less; weights are zero or NaN there.
  """
  left, right = jacobi.singular_frame(staple, sweeps)
  block = fusion.materialise(group.mul(group.adjoint(left), group.mul(staple, right)))
  d = [jnp.sqrt(_abs2(block[i, i])) for i in range(3)]
  strength = jnp.asarray(s, d[0].dtype)
  # Phases along the diagonal of X that make Re tr X A' largest: they share the phase of det A, which is the last entry's
  # of A', with weights 1/d_i.
  others = d[1] * d[2] / (d[1] + d[2])
  mode = _angle(block[2, 2]) * others / (d[0] + others)
  # d(-log density)/d eta_i at eta = 0: of the exponent s (d_0 + d_i), of a^{-3/2} from the integral over SU(2), which is
  # absent for small a, and of the measure together with the width of alpha.
  pull = strength * (d[1] + d[2])
  measure = [1 - 1.5 * pull / (pull + 2) * d[i] / (d[1] + d[2]) for i in (1, 2)]
  rates = jnp.stack([strength * (d[0] + d[i]) + m for i, m in zip((1, 2), measure)])
  floor = jnp.finfo(rates.dtype).eps
  return Frame(left, right, block, strength, mode, jnp.maximum(strength * (d[0] + others), floor), rates)


def to_frame(f: Frame, u: Array) -> Array:
  """X = V^dag U P."""
  return group.mul(group.adjoint(f.right), group.mul(u, f.left))


def from_frame(f: Frame, x: Array) -> Array:
  """U = V X P^dag."""
  return group.mul(f.right, group.mul(x, group.adjoint(f.left)))


def forward(f: Frame, latent: Latent) -> Weighted:
  """The links of latent variables."""
  r = latent.quantiles
  first = _exponential(r[0], f.rates[0], 1.0)
  second = _exponential(r[1], f.rates[1], 1 - first)
  rho = 1 - first - second
  inside = rho > 0
  # Where the point is outside, any other will do: its weight is zero.
  first, second, rho = (jnp.where(inside, x, safe) for x, safe in ((first, 0.25), (second, 0.25), (rho, 0.5)))
  alpha = _normal(r[2], f.precision * rho)
  y = jnp.stack(
    [
      rho * _unit(alpha + f.mode),
      jnp.sqrt(first * (1 + rho)) * latent.phases[0],
      jnp.sqrt(second * (1 + rho)) * latent.phases[1],
    ]
  )
  y, sphere = fusion.materialise((y, _Sphere(first, second, rho, alpha)))
  plane = _plane(f, y)
  delta = _delta(r[3], plane.a)
  inside &= (delta > 0) & (delta < 2)
  delta = jnp.where(inside, delta, 1)
  log_w = jnp.where(inside, _log_weight(f, sphere, plane, delta), -jnp.inf)
  n = latent.direction * jnp.sqrt(delta * (2 - delta))
  x = _times((lax.complex(1 - delta, n[2]), lax.complex(n[1], n[0])), (plane.v[0].conj(), -plane.v[1]))
  rows = [y, x[0] * plane.second + x[1] * plane.third, x[0].conj() * plane.third - x[1].conj() * plane.second]
  return Weighted(jnp.stack(rows), log_w)


def inverse(f: Frame, x: Array) -> Located:
  """The latent variables of links in the frame."""
  y = x[0]
  rho = jnp.sqrt(_abs2(y[0]))
  first, second = _abs2(y[1]) / (1 + rho), _abs2(y[2]) / (1 + rho)
  alpha = _angle(y[0] * _unit(-f.mode))
  y, sphere = fusion.materialise((y, _Sphere(first, second, rho, alpha)))
  plane = _plane(f, y)
  g = jnp.sum(x[1] * plane.second.conj(), axis=0), jnp.sum(x[1] * plane.third.conj(), axis=0)
  turned = _times(g, plane.v)
  tiny = jnp.finfo(rho.dtype).eps
  delta = jnp.clip(1 - turned[0].real, tiny, 2 - tiny)
  quantiles = jnp.stack(
    [
      jnp.expm1(-f.rates[0] * first) / jnp.expm1(-f.rates[0]),
      jnp.expm1(-f.rates[1] * second) / jnp.expm1(-f.rates[1] * (1 - first)),
      _normal_quantile(alpha, f.precision * rho),
      _delta_quantile(delta, plane.a),
    ]
  )
  n = jnp.stack([turned[1].imag, turned[1].real, turned[0].imag])
  phases = jnp.stack([_direction(y[1]), _direction(y[2])])
  latent = Latent(quantiles, phases, n / jnp.sqrt(jnp.maximum(jnp.sum(n * n, axis=0), tiny**2)))
  return Located(latent, _log_weight(f, sphere, plane, delta))


class _Sphere(NamedTuple):
  """eta_2, eta_3, rho and alpha less its mode."""

  first: Array
  second: Array
  rho: Array
  alpha: Array


class _Plane(NamedTuple):
  """Rows 2 and 3 of R, a frame of SU(3) with first row y; a; the SU(2) element v, as its first row; s Re (y A')_1."""

  second: Array
  third: Array
  a: Array
  v: tuple[Array, Array]
  along: Array


def _plane(f: Frame, y: Array) -> _Plane:
  unit = jnp.zeros_like(y).at[1].set(1)
  second = (unit - y[1].conj() * y) / jnp.sqrt(1 - _abs2(y[1]))
  second, third = fusion.materialise((second, jacobi.conjugate_cross(y, second)))
  entry = lambda row, column: precision.added(
    row[i] * f.block[i, column] for i in range(column + 1)
  )  # A' is triangular.
  # The quaternionic part of the 2 x 2 block of R A', which is all that Re tr of an SU(2) element with it depends on.
  one = 0.5 * (entry(second, 1) + entry(third, 2).conj())
  two = 0.5 * (entry(second, 2) - entry(third, 1).conj())
  k = jnp.maximum(jnp.sqrt(_abs2(one) + _abs2(two)), jnp.finfo(one.real.dtype).eps)
  along = f.strength * entry(y, 0).real
  # The floor keeps logarithms finite at s = 0, and changes densities by less than rounding.
  a = jnp.maximum(2 * f.strength * k, jnp.finfo(k.dtype).eps)
  return fusion.materialise(_Plane(second, third, a, (one / k, two / k), along))


def _log_weight(f: Frame, y: _Sphere, plane: _Plane, delta: Array) -> Array:
  """s Re tr X A' - log q, with all constants."""
  precision = f.precision * y.rho
  exponents = f.rates[0] * y.first + f.rates[1] * y.second + 0.5 * precision * y.alpha**2
  ends = jnp.expm1(-f.rates[0]) * jnp.expm1(-f.rates[1] * (1 - y.first)) * erf(jnp.pi * jnp.sqrt(0.5 * precision))
  # Over d eta_2 d eta_3 d alpha; Haar measure has 4 (1 + rho) rho/2 pi there.
  density = f.rates[0] * f.rates[1] / ends * jnp.sqrt(precision / (2 * jnp.pi))
  log_sphere = jnp.log(density * (2 * jnp.pi) / (4 * (1 + y.rho) * y.rho)) - exponents
  log_delta = _log_delta_density(delta, plane.a) - 0.5 * jnp.log(delta * (2 - delta)) - math.log(2 / math.pi)
  return plane.along + plane.a * (1 - delta) - log_sphere - log_delta


_SMALL_A = 2.0
_MEAN, _WIDTH = 1 - 1 / 13.5, 1 / (3 * math.sqrt(1.5))
"""(G/1.5)^{1/3} of G ~ Gamma(3/2) is close to normal with these; Wilson and Hilferty, PNAS 17 (1931) 684."""


def _delta(r: Array, a: Array) -> Array:
  root = _MEAN + _WIDTH * _standard_normal(r)
  return jnp.where(a < _SMALL_A, _exponential(r, a, 2.0), 1.5 * root**3 / a)


def _root(delta: Array, a: Array) -> Array:
  return jnp.exp(jnp.log(a * delta / 1.5) / 3)


def _delta_quantile(delta: Array, a: Array) -> Array:
  z = (_root(delta, a) - _MEAN) / _WIDTH
  return jnp.where(a < _SMALL_A, jnp.expm1(-a * delta) / jnp.expm1(-2 * a), 0.5 + 0.5 * erf(z / math.sqrt(2)))


def _log_delta_density(delta: Array, a: Array) -> Array:
  """Of delta as _delta makes it."""
  root = _root(delta, a)
  z = (root - _MEAN) / _WIDTH
  small = jnp.log(a / -jnp.expm1(-2 * a)) - a * delta
  large = jnp.log(a / (4.5 * _WIDTH * root**2)) - 0.5 * z * z - 0.5 * math.log(2 * math.pi)
  return jnp.where(a < _SMALL_A, small, large)


def _exponential(r: Array, rate: Array, end: float | Array) -> Array:
  """The point of [0, end] with quantile r for the density e^{-rate x}."""
  return -jnp.log1p(r * jnp.expm1(-rate * end)) / rate


def _normal(r: Array, precision: Array) -> Array:
  """The point of [-pi, pi] with quantile r for a normal distribution around zero, cut off there."""
  scale = jnp.sqrt(0.5 * precision)
  return _inverse_erf((2 * r - 1) * erf(jnp.pi * scale)) / scale


def _normal_quantile(x: Array, precision: Array) -> Array:
  scale = jnp.sqrt(0.5 * precision)
  return 0.5 + 0.5 * erf(scale * x) / erf(jnp.pi * scale)


def _standard_normal(r: Array) -> Array:
  return math.sqrt(2) * _inverse_erf(2 * r - 1)


def _inverse_erf(x: Array) -> Array:
  edge = 1 - jnp.finfo(x.dtype).eps
  return erfinv(jnp.clip(x, -edge, edge))


def _times(g: tuple[Array, Array], h: tuple[Array, Array]) -> tuple[Array, Array]:
  """First row of the product of two SU(2) elements that are given by theirs."""
  return g[0] * h[0] - g[1] * h[1].conj(), g[0] * h[1] + g[1] * h[0].conj()


def _unit(angle: Array) -> Array:
  return lax.complex(jnp.cos(angle), jnp.sin(angle))


def _angle(z: Array) -> Array:
  return jnp.arctan2(z.imag, z.real)


def _direction(z: Array) -> Array:
  size = jnp.sqrt(_abs2(z))
  return jnp.where(size > 0, z / jnp.where(size > 0, size, 1), 1)


def _abs2(z: Array) -> Array:
  return z.real**2 + z.imag**2
