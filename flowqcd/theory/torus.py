"""Exact results of pure gauge theory on a two-dimensional torus, for U(1), SU(2) and SU(3).

With e^{(beta/Nc) Re tr P} = sum_r c_r chi_r(P), Z = sum_r (c_r/d_r)^V over irreducible representations r of dimension d_r,
V the number of plaquettes. Gross and Witten, Phys. Rev. D 21 (1980) 446; Balantekin, J. Math. Phys. 25 (1984) 2028 for the
coefficients: c_r = sum_k det_ij I_{l_j - j + i + k}(beta/Nc), I the modified Bessel functions and l the rows of r.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special

_WINDINGS = 40
"""Range of k: I_40(x) is below rounding of I_0(x) for x up to 20."""


class Exact(NamedTuple):
  """ln Z of e^{(beta/Nc) sum Re tr P} with normalised Haar measure, and the plaquette <Re tr P>/Nc."""

  log_z: float
  plaquette: float


def exact(nc: int, beta: float, volume: int) -> Exact:
  """ln Z and the mean plaquette on a torus of `volume` plaquettes.

  The plaquette is d ln Z/d beta/V, by a complex step: no difference is taken and nothing cancels. Raises ValueError unless
  nc is 1, 2 or 3 and 0 < beta/nc <= 20.
  """
  _check(nc, beta)
  step = 1e-30
  log_z = _log_z(nc, beta + 1j * step, volume)
  return Exact(float(log_z.real), float(log_z.imag / step / volume))


def one_plaquette(nc: int, beta: float) -> Exact:
  """ln of the integral of e^{(beta/Nc) Re tr U} over the group, and <Re tr U>/Nc.

  That is one plaquette on its own, or one link in a background of the group. Raises ValueError like `exact`.
  """
  _check(nc, beta)
  step = 1e-30
  log_z = np.log(_coefficient(nc, beta + 1j * step, (0,) * nc))
  return Exact(float(log_z.real), float(log_z.imag / step))


def plaquette_variance(nc: int, beta: float, volume: int) -> float:
  """Variance of the average of all plaquettes, d<plaquette>/d beta / V, by a difference of fourth order.

  Raises ValueError like `exact`.
  """
  h = 0.01 * beta
  at = lambda k: exact(nc, beta + k * h, volume).plaquette
  return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * h) / volume


def charge_squared(beta: float, volume: int) -> float:
  """<Q^2> of U(1), Q = sum of plaquette angles in (-pi, pi] over 2 pi, an integer.

  Z(theta) = sum_n c(n + theta/(2 pi))^V, c(x) = int dphi/(2 pi) e^{beta cos phi} cos(x phi) over (-pi, pi), and <Q^2> =
  -d^2 ln Z/d theta^2 at zero. Raises ValueError like `exact`, and for fewer than three plaquettes, whose sum over n
  converges slowly.
  """
  _check(1, beta)
  if volume < 3:
    raise ValueError(f"the charge needs at least 3 plaquettes, not {volume}")
  nodes, weight = np.polynomial.legendre.leggauss(400)
  phi = np.pi * nodes
  density = weight / 2 * np.exp(beta * (np.cos(phi) - 1))
  n = np.arange(-60, 61)[:, None]
  c = np.sum(density * np.cos(n * phi), axis=1)
  first, second = np.sum(density * phi * np.sin(n * phi), axis=1), np.sum(density * phi**2 * np.cos(n * phi), axis=1)
  c, first, second = (x / c.max() for x in (c, first, second))
  curvature = volume * (c ** (volume - 1) * second - (volume - 1) * c ** (volume - 2) * first**2)
  return float(np.sum(curvature) / np.sum(c**volume) / (2 * np.pi) ** 2)


def _check(nc: int, beta: float) -> None:
  if nc not in (1, 2, 3) or not 0 < beta / nc <= 20:
    raise ValueError(f"exact results are for Nc = 1, 2, 3 and beta/Nc up to 20, not Nc = {nc}, beta = {beta}")


def _log_z(nc: int, beta: complex, volume: int) -> complex:
  # Quadratic Casimirs suppress representations by e^{-C nc/beta}: this many rows are beyond rounding.
  rows = 12 + int(12 * (abs(beta) / nc) ** 0.5)
  logs = []
  for weight in _representations(nc, rows):
    c = _coefficient(nc, beta, weight)
    if c.real > 0:  # Otherwise it is below rounding.
      logs.append(np.log(c) - np.log(_dimension(weight)))
  logs = volume * np.array(logs)
  top = logs[np.argmax(np.real(logs))]
  return top + np.log(np.sum(np.exp(logs - top)))


def _representations(nc: int, rows: int) -> list[tuple[int, ...]]:
  """Row lengths l_1 >= ... >= l_Nc = 0; for U(1) the charges."""
  if nc == 1:
    return [(n,) for n in range(-rows, rows + 1)]
  return [(*l, 0) for l in itertools.product(range(rows), repeat=nc - 1) if list(l) == sorted(l, reverse=True)]


def _coefficient(nc: int, beta: complex, weight: tuple[int, ...]) -> complex:
  if nc == 1:
    return special.iv(weight[0], beta)
  i, j = np.indices((nc, nc))
  k = np.arange(-_WINDINGS, _WINDINGS + 1)[:, None, None]
  orders = np.abs(np.array(weight)[j] - j + i + k)  # I_{-n} = I_n
  return np.sum(_determinants(special.iv(orders, beta / nc)))


def _determinants(a: np.ndarray) -> np.ndarray:
  """Determinants by expansion: numpy's LU would lose the complex step, which is 1e-30 of the real part."""
  if a.shape[-1] == 1:
    return a[..., 0, 0]
  minor = lambda c: np.delete(a[..., 1:, :], c, axis=-1)
  return np.add.reduce([(-1) ** c * a[..., 0, c] * _determinants(minor(c)) for c in range(a.shape[-1])])


def _dimension(weight: tuple[int, ...]) -> int:
  n = len(weight)
  ratios = [(weight[i] - weight[j] + j - i) / (j - i) for i in range(n) for j in range(i + 1, n)]
  return round(np.prod(ratios))
