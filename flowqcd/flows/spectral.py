"""Conjugacy classes of U(1), SU(2), SU(3): eigenphases, coordinates of the unit box, and maps of matrices that move them.

A map P -> P' that moves eigenphases only, theta -> theta', commutes with conjugation. Its Jacobian is that of the phases
times the ratio of Haar densities prod_{i<j} 4 sin^2((theta_i - theta_j)/2); arXiv:2008.05456, sec. III.

The canonical cell. theta in ascending order, sum zero for Nc > 1, and theta_last - theta_first <= 2 pi. With the gaps
a_ij = (theta_j - theta_i)/(2 pi), all in [0, 1], the box coordinates are
  U(1): t = theta/(2 pi) mod 1;   SU(2): t = a_12;   SU(3): w = a_13, r = a_12/a_13, so a_12 = w r, a_23 = w (1 - r).
The faces of the box are the Weyl walls, where eigenvalues coincide and the Haar density vanishes: monotone maps of each
coordinate with fixed ends keep those zeros where they are.

Everything that is a ratio of two zeros at a wall is written as a ratio: a density known to rounding in each of its terms
is not known near the wall.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.lattice import fusion, group
from flowqcd.types import Array

_PI = jnp.pi


class End(NamedTuple):
  """How a box coordinate moved relative to its ends: log t'/t and log (1-t')/(1-t), each [d, V]."""

  low: Array
  high: Array


def num_coordinates(nc: int) -> int:
  """Box coordinates of a class: 1, 1, 2 for Nc = 1, 2, 3. Raises ValueError for other Nc."""
  if nc not in (1, 2, 3):
    raise ValueError(f"conjugacy classes are written for Nc = 1, 2, 3, not Nc = {nc}")
  return max(1, nc - 1)


@jax.custom_jvp
def eigenphases(p: Array) -> Array:
  """Phases theta of the eigenvalues e^{i theta}, in the canonical cell. p: [Nc, Nc, V] -> [Nc, V].

  In closed form, from invariants of p less its mean eigenvalue, so that the gaps are accurate to rounding where
  eigenvalues coincide too. d theta_k = Im e^{-i theta_k} tr(Pi_k dP) with the projectors Pi_k of `projectors`.
  """
  nc = p.shape[0]
  num_coordinates(nc)
  if nc == 1:
    return jnp.angle(p[0])
  return _su2_phases(p) if nc == 2 else _su3_phases(p)


@eigenphases.defjvp
def _eigenphases_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  (p,), (dp,) = primals, tangents
  theta = eigenphases(p)
  # Multiplied and summed: as a contraction with the sites for a batch it would be as many tiny matrix products.
  change = jnp.sum(projectors(p, theta) * jnp.swapaxes(dp, 0, 1), axis=(1, 2))
  return theta, (jnp.exp(-1j * theta) * change).imag


def projectors(p: Array, theta: Array) -> Array:
  """Pi_k = prod_{j != k} (P - lambda_j)/(lambda_k - lambda_j), the projectors on the eigenvectors. -> [Nc, Nc, Nc, V].

  Where two eigenvalues coincide no projector exists; what is returned is bounded, and the sum over the two is right.
  """
  nc = p.shape[0]
  unit = group.identity(nc, p.dtype)
  found = []
  for k in range(nc):
    total = jnp.broadcast_to(unit, p.shape)
    for j in range(nc):
      if j != k:
        total = group.mul(total, (p - jnp.exp(1j * theta[j]) * unit) / _difference(theta[k], theta[j]))
    found.append(total)
  return jnp.stack(found)


def to_box(theta: Array) -> Array:
  """Box coordinates [d, V] of canonical phases [Nc, V]."""
  nc = theta.shape[0]
  if nc == 1:
    t = theta / (2 * _PI)
    return t - jnp.floor(t)
  gaps = (theta[1:] - theta[0]) / (2 * _PI)
  t = gaps if nc == 2 else jnp.stack([gaps[1], gaps[0] / _positive(gaps[1])])
  return jnp.clip(t, 0, 1)  # Rounding may step over an end, and what follows takes logarithms of distances to it.


def from_box(t: Array, nc: int) -> Array:
  """Canonical phases [Nc, V] at box coordinates t [d, V], the inverse of `to_box`."""
  if nc == 1:
    return 2 * _PI * t
  w = _PI * t[0]
  if nc == 2:
    return jnp.stack([-w, w])
  y = (4 / 3) * w * (t[1] - 0.5)
  return jnp.stack([-0.5 * y - w, y, -0.5 * y + w])


def log_volume_ratio(t: Array, moved: Array, end: End, nc: int) -> Array:
  """ln of how the map stretches the Haar measure, beyond the d t'/d t of the coordinates: [V].

  ln (w'/w) for SU(3), since d theta = w dw dr up to a constant, plus ln H' - ln H, H = prod_{i<j} sin^2(pi a_ij), with
  sin(pi a) = a (1 - a) g(a) and g smooth and positive on [0, 1].
  """
  if nc == 1:
    return jnp.zeros_like(t[0])
  smooth = lambda a, b: _log_g(b) - _log_g(a)
  if nc == 2:
    return 2 * (end.low[0] + end.high[0] + smooth(t[0], moved[0]))
  (w, r), (w2, r2) = t, moved
  lower, upper = (w * r, w2 * r2), (w * (1 - r), w2 * (1 - r2))
  # 1 - a = (1 - w) + w (1 - r) vanishes at a corner of the box only.
  far = lambda a, b: jnp.log(_positive(1 - b) / _positive(1 - a)) + smooth(a, b)
  outer = end.low[0] + end.high[0] + smooth(w, w2)
  inner = 2 * end.low[0] + end.low[1] + end.high[1] + far(*lower) + far(*upper)
  return end.low[0] + 2 * (outer + inner)


def _log_g(a: Array) -> Array:
  """ln of sin(pi a)/(a (1 - a)), symmetric about 1/2; finite on [0, 1]."""
  near = jnp.minimum(a, 1 - a)
  # Below 0.02 four terms of sin(x)/x are exact to rounding; its derivative as a quotient would divide by x^2.
  small = near < 0.02
  x = _PI * jnp.where(small, 0.5, near)
  square = (_PI * near) ** 2
  series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
  return jnp.log(_PI * jnp.where(small, series, jnp.sin(x) / x) / (1 - near))


def transport(p: Array, theta: Array, moved: Array) -> Array:
  """W = sum_k e^{i (theta'_k - theta_k)} Pi_k, the group element with W P = P'. -> [Nc, Nc, V].

  Newton's interpolation of e^{i psi} in the eigenvalues, F_1 + F_12 (P - lambda_1) + F_123 (P - lambda_1)(P - lambda_2),
  with lambda_1 and lambda_3 the pair farthest apart: the divided differences of close pairs stay close to derivatives,
  and the one division by a difference of differences is by the largest of all.
  """
  nc = p.shape[0]
  psi = moved - theta
  if nc == 1:
    return jnp.exp(1j * psi)[None]
  if nc == 3:
    theta, psi = _farthest_apart(theta, psi)
  unit, value, node = group.identity(nc, p.dtype), jnp.exp(1j * psi), jnp.exp(1j * theta)
  first = _divided_difference(theta[0], theta[1], psi[0], psi[1])
  step = p - node[0] * unit
  if nc == 2:
    return value[0] * unit + first * step
  other = _divided_difference(theta[1], theta[2], psi[1], psi[2])
  second = (first - other) / _difference(theta[0], theta[2])
  both = fusion.materialise(group.mul(step, p - node[1] * unit))
  return value[0] * unit + first * step + second * both


def _farthest_apart(theta: Array, psi: Array) -> tuple[Array, Array]:
  """theta and psi [3, V] in an order in which the first and the last eigenvalue have the largest distance."""
  distance = jnp.abs(jnp.sin(0.5 * (theta - jnp.roll(theta, 1, axis=0))))  # of (0, 2), (1, 0), (2, 1)
  last_two = distance[2] >= jnp.maximum(distance[0], distance[1])
  first_two = ~last_two & (distance[1] >= distance[0])

  def order(x: Array) -> Array:
    ends = jnp.where(last_two, x[1], x[0]), jnp.where(first_two, x[1], x[2])
    return jnp.stack([ends[0], jnp.where(last_two, x[0], jnp.where(first_two, x[2], x[1])), ends[1]])

  return order(theta), order(psi)


def _divided_difference(theta1: Array, theta2: Array, psi1: Array, psi2: Array) -> Array:
  """(e^{i psi_1} - e^{i psi_2})/(e^{i theta_1} - e^{i theta_2}), from the gaps."""
  phase = jnp.exp(0.5j * (psi1 + psi2))
  return phase * (2j * jnp.sin(0.5 * (psi1 - psi2))) / _difference(theta1, theta2)


def _difference(a: Array, b: Array) -> Array:
  """e^{ia} - e^{ib} = e^{i (a+b)/2} 2i sin((a-b)/2), without cancellation, and kept from zero."""
  return jnp.exp(0.5j * (a + b)) * (2j * _nonzero(jnp.sin(0.5 * (a - b))))


def _positive(x: Array) -> Array:
  return jnp.maximum(x, jnp.finfo(x.dtype).eps)


def _nonzero(x: Array) -> Array:
  floor = jnp.finfo(x.dtype).eps
  return jnp.where(x < 0, jnp.minimum(x, -floor), jnp.maximum(x, floor))


def _su2_phases(p: Array) -> Array:
  """(-theta, theta) with cos theta = tr p / 2 and sin theta from the traceless part, accurate at both ends."""
  cosine = 0.5 * group.trace(p).real
  traceless = group.project(p)
  sine = jnp.sqrt(0.5 * jnp.sum(_abs2(traceless), axis=(0, 1)))
  theta = jnp.arctan2(sine, cosine)
  return jnp.stack([-theta, theta])


def _su3_phases(p: Array) -> Array:
  """The eigenvalue farthest from the others by Cardano's formula, then the gap of the other two from a norm.

  Let q be p less a third of its trace, scaled to norm one, with eigenvalues mu: mu^3 + e2 mu - e3 = 0. The root of largest
  modulus is simple, so rounding moves it by a rounding. (q - mu)(q + mu/2) has no part along its eigenvector, and on the
  others the eigenvalues +-(gap/2)(...): its norm gives the gap without a cancellation.
  """
  mean = group.trace(p) / 3
  unit = group.identity(3, p.dtype)
  q = p - mean * unit
  size = jnp.sqrt(jnp.sum(_abs2(q), axis=(0, 1)))
  q = fusion.materialise(q / _positive(size))
  square = fusion.materialise(group.mul(q, q))
  e2, e3 = -0.5 * group.trace(square), jnp.sum(square * jnp.swapaxes(q, 0, 1), axis=(0, 1)) / 3
  mu = _largest_root(e2, e3)
  alone = jnp.angle(mean + size * mu)
  rest = square - 0.5 * mu * q - 0.5 * mu * mu * unit
  norm, d2 = jnp.sum(_abs2(rest), axis=(0, 1)), 2.25 * _abs2(mu)
  # norm = (g^2/4)(2 d^2 + g^2/2), g the distance of the pair and d that of its centre from mu.
  g = size * jnp.sqrt(8 * norm / _positive(2 * d2 + jnp.sqrt(4 * d2 * d2 + 8 * norm)))
  # The pair is e^{i (-alone/2 +- half)}, and its centre e^{-i alone/2} cos(half).
  half = jnp.arctan2(0.5 * g, ((mean - 0.5 * size * mu) * jnp.exp(0.5j * alone)).real)
  return _canonical([alone, -0.5 * alone - half, -0.5 * alone + half])


def _largest_root(e2: Array, e3: Array) -> Array:
  """The root of mu^3 + e2 mu - e3 = 0 of largest modulus."""
  root = jnp.sqrt((0.5 * e3) ** 2 + (e2 / 3) ** 3)
  # Of the two signs the one that adds up.
  plus, minus = 0.5 * e3 + root, 0.5 * e3 - root
  cube = jnp.where(_abs2(plus) >= _abs2(minus), plus, minus)
  c = _positive(jnp.abs(cube)) ** (1 / 3) * jnp.exp(1j / 3 * jnp.angle(cube))
  roots = jnp.stack([w * c - e2 / (3 * w * c) for w in np.exp(2j * np.pi / 3 * np.arange(3)).astype(c.dtype)])
  modulus = _abs2(roots)
  mu = roots[0]
  for k in (1, 2):
    mu = jnp.where(modulus[k] > jnp.maximum(modulus[0], modulus[k - 1]), roots[k], mu)
  for _ in range(2):  # Newton: takes off the rounding of the cube root.
    slope = 3 * mu * mu + e2
    mu = mu - (mu**3 + e2 * mu - e3) * slope.conj() / _positive(_abs2(slope))
  return mu


def _canonical(phases: list[Array]) -> Array:
  """Three phases of sum zero in ascending order and within 2 pi of each other."""
  x, y, z = _sorted3(phases)
  wraps = jnp.where(z - x > 2 * _PI, 2 * _PI, 0.0).astype(x.dtype)
  return jnp.stack(_sorted3([x + wraps, y, z - wraps]))


def _sorted3(phases: list[Array]) -> list[Array]:
  a, b, c = phases
  a, b = jnp.minimum(a, b), jnp.maximum(a, b)
  b, c = jnp.minimum(b, c), jnp.maximum(b, c)
  return [jnp.minimum(a, b), jnp.maximum(a, b), c]


def _abs2(z: Array) -> Array:
  return z.real**2 + z.imag**2
