"""Exactly solvable cases, written without flowqcd."""

import functools
import itertools

import numpy as np


@functools.cache
def plaquette_2d(nc: int, beta: float, volume: int, points: int = 48) -> float:
  """<Re tr P>/Nc of the Wilson action on a 2D torus of `volume` plaquettes.

  Z = sum_r (c_r/d_r)^V with e^{(beta/Nc) Re tr U} = sum_r c_r chi_r(U). By Weyl's formula
  c_r = (1/Nc!) int d theta f conj(a_r) a_0, a_r antisymmetric sums of e^{i l.theta}: trigonometric, so a grid is exact
  to rounding. d ln Z / d beta = V <Re tr P>/Nc.
  """
  total, slope = 0.0, 0.0
  for c, dc, d in _coefficients(nc, beta, points):
    total += (c / d) ** volume
    slope += volume * (c / d) ** (volume - 1) * dc / d
  return slope / total / volume


def _coefficients(nc: int, beta: float, points: int) -> list[tuple[float, float, int]]:
  """(c_r, dc_r/dbeta, d_r) for all representations that matter."""
  angles = 2 * np.pi * np.arange(points) / points
  if nc == 1:
    f, re = np.exp(beta * np.cos(angles)), np.cos(angles)
    return [(np.mean(f * np.cos(n * angles)), np.mean(re * f * np.cos(n * angles)), 1) for n in range(-20, 21)]
  free = np.stack(np.meshgrid(*[angles] * (nc - 1), indexing="ij"))
  theta = np.concatenate([free, -free.sum(axis=0, keepdims=True)])
  trace = np.cos(theta).sum(axis=0) / nc
  f = np.exp(beta * trace)
  rho = tuple(range(nc - 1, -1, -1))
  vacuum = _antisymmetric(rho, theta)
  factorial = int(np.prod(range(1, nc + 1)))
  found = []
  for rows in itertools.product(range(8), repeat=nc - 1):
    weight = (*sorted(rows, reverse=True), 0)
    if rows != weight[:-1]:
      continue
    l = tuple(w + r for w, r in zip(weight, rho))
    kernel = (_antisymmetric(l, theta).conj() * vacuum).real / factorial
    d = np.prod([(l[i] - l[j]) / (rho[i] - rho[j]) for i in range(nc) for j in range(i + 1, nc)])
    found.append((np.mean(f * kernel), np.mean(trace * f * kernel), round(d)))
  return found


def _antisymmetric(l, theta):
  total = 0
  for p in itertools.permutations(range(len(l))):
    sign = np.linalg.det(np.eye(len(l))[list(p)])
    total = total + sign * np.exp(1j * sum(l[p[i]] * theta[i] for i in range(len(l))))
  return total


def free_log_det(nc: int, lattice: tuple[int, ...], kappa: float, boundary: tuple[float, ...]) -> float:
  """ln |det D| of free Wilson quarks: eigenvalues 1 - 2 kappa sum cos p -+ 2 i kappa |sin p|, each Ns/2 * Nc times."""
  momenta = [(2 * np.pi * np.arange(n) + (np.pi if s < 0 else 0)) / n for n, s in zip(lattice, boundary)]
  p = np.stack(np.meshgrid(*momenta, indexing="ij"))
  real = 1 - 2 * kappa * np.cos(p).sum(axis=0)
  norm2 = real**2 + 4 * kappa**2 * (np.sin(p) ** 2).sum(axis=0)
  spin = 2 ** (len(lattice) // 2)
  return nc * spin / 2 * np.log(norm2).sum()


def free_pion(nc: int, lattice: tuple[int, ...], kappa: float, boundary: tuple[float, ...]) -> np.ndarray:
  """sum_x tr |D^{-1}(x, t; 0)|^2 of free quarks, from the propagator in momentum space."""
  momenta = [(2 * np.pi * np.arange(n) + (np.pi if s < 0 else 0)) / n for n, s in zip(lattice, boundary)]
  p = np.stack(np.meshgrid(*momenta, indexing="ij"))
  real = 1 - 2 * kappa * np.cos(p).sum(axis=0)
  sine = 2 * kappa * np.sin(p)
  norm2 = real**2 + (sine**2).sum(axis=0)
  # D(p) = real + i sum gamma sine; D^{-1} = (real - i gamma sine)/norm2: components along 1 and each gamma.
  parts = [real / norm2, *(-1j * s / norm2 for s in sine)]
  spin = 2 ** (len(lattice) // 2)
  # |.|^2 is blind to the boundary phase; the inverse FFT over p = 2 pi n / L gives x up to that phase.
  space = [np.fft.ifftn(part) for part in parts]
  density = nc * spin * sum(np.abs(s) ** 2 for s in space)
  return density.reshape(lattice[0], -1).sum(axis=1)
