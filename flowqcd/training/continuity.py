r"""A path of flows between couplings from least squares, without training.

Under dU/ds = -T^a d^a S~ U the weight of a sample of e^{-s S} against e^{-(s + ds) S} changes at the rate
  r = -S + sum_k f_k phi_k,  phi_k = L0 W_k + s sum d^a S d^a W_k,  S~ = sum_k f_k W_k,
and r is constant on all links for the exact S~: Luescher's equation, arXiv:0907.5491. Its variance over samples of e^{-s S}
is the rate at which the weights spread; it is quadratic in f, so that samples at a few couplings give the best f_k(s) at
once. S = -(1/Nc) sum Re tr P here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.flows import loop_action, wilson_loops
from flowqcd.lattice import group, sites
from flowqcd.theory import gauge
from flowqcd.types import Array


class Terms(NamedTuple):
  """Of one configuration: S or what stands for it, a scalar, and phi_k of W0 to W7 and of larger loops [8 + shapes].

  Of samples, with their axes in front.
  """

  action: Array | np.ndarray
  loops: Array | np.ndarray


class Fit(NamedTuple):
  """coefficients: f_kj of f_k(s) = sum_j f_kj s^j, [8 + shapes, degree + 1]. variance, residual: Var S and Var r at each
  coupling."""

  coefficients: np.ndarray
  variance: np.ndarray
  residual: np.ndarray


class Lines(NamedTuple):
  """Couplings of winding lines Lambda at a point s of the path, and their derivatives by s: one each for a direction."""

  at: gauge.LineCouplings = ()
  rate: gauge.LineCouplings = ()


def terms(u: Array, s: Array, shapes: tuple[str, ...] = (), lines: Lines | None = None) -> Terms:
  """S and phi_k at links u [Nd, Nc, Nc, *L], a sample of e^{-s S}, by an evaluation of the loop action for each loop.

  shapes: of `wilson_loops`, besides the eight of `loop_action`. lines: for samples of e^{-s S - Lambda_s}, phi_k is
  L0 W_k + d^a (s S + Lambda_s) d^a W_k, and dLambda_s/ds is added to S.
  """
  lattice, v, nc, lines = sites.extents(u), sites.flatten(u), u.shape[1], lines or Lines()
  units = jnp.eye(loop_action.NUM_LOCAL, loop_action.NUM_LOCAL + len(lattice), dtype=v.real.dtype)

  def one(unit: Array) -> tuple[Array, Array, Array]:
    found = loop_action.evaluate(v, lattice, unit)
    return found.loops[0], group.to_coordinates(found.gradient), found.laplacian

  w0, gradients, laplacians = lax.map(one, units)
  # S = -W0/(2 Nc).
  force = -s / (2 * nc) * gradients[0] + group.to_coordinates(sites.flatten(gauge.winding_force(u, lines.at)))
  product = lambda gradient: jnp.sum(gradient * force, axis=range(-force.ndim, 0))
  phi = [laplacians + product(gradients)]
  for shape in shapes:
    found = wilson_loops.evaluate_shapes(v, (shape,), lattice, jnp.ones(1, v.real.dtype))
    phi.append((found.laplacian + product(group.to_coordinates(found.gradient)))[None])
  return Terms(-w0[0] / (2 * nc) + gauge.winding(u, lines.rate), jnp.concatenate(phi))


def fit(couplings: Sequence[float] | np.ndarray, samples: Terms, degree: int = 3, cutoff: float | None = None) -> Fit:
  """Polynomials f_k(s) from samples [n, N] and [n, N, loops] at n couplings.

  Minimises sum_n Var(r)/v_n, v_n from a fit without v_n, so that each coupling counts by what is left of it. Loops of one
  theory can depend on each other (tr P^2 = (tr P)^2 - 2 tr P^* in SU(3)): the shortest solution in units of each phi's
  spread, without singular values below the cutoff, which is what the samples' precision can tell from zero. Raises
  ValueError for arrays that do not fit each other, or fewer couplings than the polynomials have coefficients.
  """
  # Means are up to a hundred times the spreads: rounding of single precision is 1e-5 of these.
  if cutoff is None:
    cutoff = 1e-5 if np.asarray(samples.loops).dtype == np.float32 else 1e-8
  s, action, loops = (np.asarray(x, float) for x in (couplings, samples.action, samples.loops))
  if action.shape[:1] != s.shape or loops.shape[:2] != action.shape:
    raise ValueError(f"couplings {s.shape}, S {action.shape} and loops {loops.shape} do not fit each other")
  if len(s) <= degree:
    raise ValueError(f"polynomials of degree {degree} need samples at {degree + 1} couplings or more, not {len(s)}")
  y = action - action.mean(axis=1, keepdims=True)
  phi = loops - loops.mean(axis=1, keepdims=True)
  spread = phi.std(axis=(0, 1))
  # [n, N, loops, degree + 1], in units in which all columns are of one size.
  top = np.abs(s).max()
  columns = (phi / spread)[..., None] * ((s / top)[:, None, None, None] ** np.arange(degree + 1))
  columns = columns.reshape(*y.shape, -1)
  weight = np.ones(len(s))
  for _ in range(2):
    scaled = (columns * weight[:, None, None]).reshape(-1, columns.shape[-1])
    found = np.linalg.lstsq(scaled, (y * weight[:, None]).ravel(), rcond=cutoff)[0]
    residual = (y - columns @ found).var(axis=1)
    weight = 1 / np.sqrt(np.maximum(residual, 1e-3 * residual.max()))
  found = found.reshape(loops.shape[-1], -1) / spread[:, None] / top ** np.arange(degree + 1)
  return Fit(found, y.var(axis=1), residual)


def schedule(couplings: Sequence[float] | np.ndarray, residual: np.ndarray, stages: int) -> np.ndarray:
  """stages + 1 couplings from the first to the last: half of the stages uniform, half where sqrt(Var r) is large.

  What weights lose in a stage goes with its length squared times Var(r).
  """
  s = np.asarray(couplings, float)
  fine = np.linspace(s[0], s[-1], 1001)
  density = np.sqrt(np.interp(fine, s, residual))
  density = 0.5 + 0.5 * density / max(float(density.mean()), 1e-300)
  total = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
  return np.interp(np.linspace(0, 1, stages + 1), total / total[-1], fine)
