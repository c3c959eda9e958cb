"""Gamma matrices in chiral form, gamma_mu = [[0, s_mu], [s_mu^dag, 0]], gamma5 = diag(1, -1).

Direction 0 is time. In four dimensions s is 2x2 (s_0 = 1, s_k = i sigma_k), in two it is 1x1 (s_0 = 1, s_1 = i), so
that one formula with half spinors serves both: (1 - sign gamma) psi = (h, -sign s^dag h), h = up - sign s down.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from flowqcd.types import Array

_PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


@cache
def chiral_blocks(nd: int) -> np.ndarray:
  """The blocks s_mu, complex [nd, half, half]. Raises ValueError unless nd is 2 or 4."""
  if nd == 2:
    return np.array([[[1]], [[1j]]])
  if nd == 4:
    return np.concatenate([np.eye(2)[None], 1j * _PAULI])
  raise ValueError(f"gamma matrices are defined here in 2 and 4 dimensions, not {nd}")


@cache
def gammas(nd: int) -> np.ndarray:
  """Hermitian gamma_mu with {gamma_mu, gamma_nu} = 2 delta. Complex [nd, Ns, Ns], Ns = 2^(nd/2)."""
  s = chiral_blocks(nd)
  zero = np.zeros_like(s)
  return np.block([[zero, s], [s.conj().swapaxes(1, 2), zero]])


@cache
def gamma5(nd: int) -> np.ndarray:
  """diag(1, .., -1, ..), anticommutes with every gamma_mu; it is gamma_0 gamma_1 gamma_2 gamma_3 in 4D."""
  half = chiral_blocks(nd).shape[1]
  return np.diag([1.0] * half + [-1.0] * half)


def components(nd: int) -> int:
  """Number of spin components Ns = 2^(nd/2)."""
  return 2 * chiral_blocks(nd).shape[1]


def matvec(matrix: np.ndarray, psi: Array) -> list[Array]:
  """Rows of (matrix psi) over spin; zeros cost nothing, and 1, -1 no multiplication. psi: [spin, ...]."""
  rows = []
  for row in matrix:
    terms = [_scaled(z, psi[j]) for j, z in enumerate(row) if z != 0]
    rows.append(sum(terms[1:], terms[0]))
  return rows


def _scaled(z: complex, x: Array) -> Array:
  if z == 1:
    return x
  if z == -1:
    return -x
  return complex(z) * x
