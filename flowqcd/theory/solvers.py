"""Conjugate gradients for hermitian positive operators on complex fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from flowqcd.types import Array

_INNER_TOLERANCE = 1e-5
"""Of a solve in single precision whose result is corrected: what it reaches without stagnation."""


class ConvergenceError(ArithmeticError):
  """A solver stopped before it reached its tolerance."""


class Solution(NamedTuple):
  """x with A x = b, and how it was found.

  x is all NaN where converged is False, so that an unconverged solve cannot pass for a result.
  residual: |b - A x|/|b|, computed from x itself and not from the recursion.
  """

  x: Array
  iterations: Array
  residual: Array
  converged: Array


def tolerance(dtype: jnp.dtype) -> float:
  """A relative residual that the precision can reach with room to spare: 1e-6 single, 1e-13 double."""
  return 1e-6 if jnp.finfo(dtype).bits == 32 else 1e-13


def inner(a: Array, b: Array) -> Array:
  """<a, b> = sum conj(a) b."""
  return jnp.sum(a.conj() * b)


def norm2(a: Array) -> Array:
  """|a|^2, real."""
  return jnp.sum(a.real**2 + a.imag**2)


def cg(
  apply: Callable[[Array], Array],
  b: Array,
  tol: float | None = None,
  max_iterations: int = 1000,
) -> Solution:
  """Solve A x = b by conjugate gradients; Hestenes and Stiefel (1952).

  Stops when the recursive residual is below tol |b|; the true residual may exceed it by rounding, and ten times is
  still called converged. b = 0 gives x = 0. tol None: `tolerance` of the dtype.
  """
  tol = tolerance(b.dtype) if tol is None else tol
  x, iterations = _iterate(apply, b, tol, max_iterations)
  return _checked(x, b, b - apply(x), iterations, tol)


def _iterate(apply: Callable[[Array], Array], b: Array, tol: float | Array, max_iterations: int) -> tuple[Array, Array]:
  """x and the number of iterations, good or not."""
  goal = (tol**2) * norm2(b)

  def unfinished(state: tuple) -> Array:
    _, _, _, rr, i = state
    return (rr > goal) & (i < max_iterations)

  def iterate(state: tuple) -> tuple:
    x, r, p, rr, i = state
    ap = apply(p)
    alpha = rr / inner(p, ap).real
    x, r = x + alpha * p, r - alpha * ap
    new = norm2(r)
    return x, r, r + (new / rr) * p, new, i + 1

  start = (jnp.zeros_like(b), b, b, norm2(b), jnp.zeros((), jnp.int32))
  x, _, _, _, iterations = lax.while_loop(unfinished, iterate, start)
  return x, iterations


def _checked(x: Array, b: Array, r: Array, iterations: Array, tol: float) -> Solution:
  size = jnp.sqrt(norm2(b))
  residual = jnp.sqrt(norm2(r)) / jnp.where(size > 0, size, 1)
  converged = residual <= 10 * tol  # False for NaN as well.
  return Solution(jnp.where(converged, x, jnp.nan), iterations, residual, converged)


def refined_cg(
  apply: Callable[[Array], Array],
  single: Callable[[Array], Array],
  b: Array,
  tol: float | None = None,
  max_iterations: int = 1000,
) -> Solution:
  """Solve A x = b in complex128 by conjugate gradients in complex64: x <- x + A_single^{-1} (b - A x) while that helps.

  single: the same operator on complex64. Stops when the true residual is below tol |b|, or no longer halved. iterations: of
  all inner solves together. As `cg` otherwise.
  """
  tol = tolerance(b.dtype) if tol is None else tol
  goal = tol * jnp.sqrt(norm2(b))

  def unfinished(state: tuple) -> Array:
    _, _, norm, before, _ = state
    return (norm > goal) & (norm < 0.5 * before)

  def refine(state: tuple) -> tuple:
    x, r, norm, _, iterations = state
    # The residual is scaled to one, or its squares would leave the range of single precision.
    enough = jnp.maximum(0.5 * goal / norm, _INNER_TOLERANCE).astype(jnp.float32)
    step, more = _iterate(single, (r / norm).astype(jnp.complex64), enough, max_iterations)
    x = x + norm * step.astype(b.dtype)
    r = b - apply(x)
    return x, r, jnp.sqrt(norm2(r)), norm, iterations + more

  start = jnp.sqrt(norm2(b))
  state = (jnp.zeros_like(b), b, start, jnp.full_like(start, jnp.inf), jnp.zeros((), jnp.int32))
  x, r, _, _, iterations = lax.while_loop(unfinished, refine, state)
  return _checked(x, b, r, iterations, tol)


def require(solution: Solution) -> Array:
  """x of a concrete solution (not under a trace). Raises ConvergenceError, with the worst residual, if it is none."""
  if not bool(jnp.all(solution.converged)):
    raise ConvergenceError(
      f"conjugate gradients stopped after {int(jnp.max(solution.iterations))} iterations at a relative residual of "
      f"{float(jnp.max(solution.residual)):.2e}; kappa may be too large for this configuration"
    )
  return solution.x
