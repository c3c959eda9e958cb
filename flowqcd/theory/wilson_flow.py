"""The Wilson flow dV/dt = -g0^2 (T^a d^a S_w) V with S_w = (2/g0^2) sum_p Re tr(1 - P), arXiv:1006.4518 eq. 1.4."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import exponential, group, integrators, loops, precision, sites
from flowqcd.types import Array


def velocity(v: Array, lattice: sites.Extents) -> Array:
  """Z with dV/dt = Z V: minus TA of the plaquettes through each link. Flat links in and out."""
  return -group.project(loops.link_plaquettes(v, lattice))


@precision.of_input
def flow(u: Array, t: float, step: float = 0.01) -> Array:
  """Links at flow time t (lattice units a^2). u: [Nd, Nc, Nc, *L], same shape out.

  Third-order Runge-Kutta at a fixed step; the last step is shortened where t is no multiple of it.
  Raises ValueError for t < 0 or step <= 0. arXiv:1006.4518, appendix C.
  """
  if t < 0 or step <= 0:
    raise ValueError(f"the flow needs t >= 0 and step > 0, not t = {t}, step = {step}")
  lattice, v = sites.extents(u), sites.flatten(u)
  whole = int(t / step + 1e-9)
  rest = t - whole * step
  # Powers of two: any t needs a handful of compiled lengths, shared between calls.
  for power in reversed(range(whole.bit_length())):
    if whole >> power & 1:
      v = _run(v, lattice, step * 2**power, 2**power)
  if rest > 1e-12 * max(t, 1.0):
    v = _run(v, lattice, rest, 1)
  return sites.unflatten(v, lattice)


@functools.partial(jax.jit, static_argnames=("lattice", "steps"))
def _run(v: Array, lattice: sites.Extents, t: float, steps: int) -> Array:
  rate = lambda time, v: (velocity(v, lattice), jnp.zeros((), v.real.dtype))
  return integrators.transport(integrators.LUESCHER3, rate, v, 0.0, t, steps).u


class AdaptiveFlow(NamedTuple):
  """Links at the end of an adaptive flow, the number of accepted steps and the largest local error allowed through."""

  u: Array
  steps: Array
  max_error: Array


@precision.of_input
def adaptive(u: Array, t: float, tol: float = 1e-4, first: float = 0.02, max_steps: int = 10_000) -> AdaptiveFlow:
  """Links at flow time t by steps whose local error, max |V3 - V2| over matrix elements, stays below tol.

  The error compares the third-order step with an embedded second-order one made of the same three evaluations; the
  next step is h 0.95 (tol/error)^(1/3). Fritzsch and Ramos, arXiv:1301.4388, appendix D. u: [Nd, Nc, Nc, *L].
  The links are NaN should max_steps not suffice. Works under jit and vmap.
  """
  lattice, v = sites.extents(u), sites.flatten(u)
  real = v.real.dtype
  tiny = 1e-6 * t

  def unfinished(state: tuple) -> Array:
    return (state[1] < t - tiny) & (state[3] < max_steps)

  def advance(state: tuple) -> tuple:
    v, time, h, count, worst = state
    h = jnp.minimum(h, t - time)
    new, error = _embedded(v, lattice, h)
    good = error <= tol
    scale = jnp.clip(0.95 * (tol / jnp.maximum(error, 1e-30)) ** (1 / 3), 0.3, 3.0)
    v = jnp.where(good, new, v)
    time = jnp.where(good, time + h, time)
    worst = jnp.where(good, jnp.maximum(worst, error), worst)
    return v, time, (h * scale).astype(real), count + 1, worst

  zero = jnp.zeros((), real)
  start = (v, zero, jnp.asarray(min(first, t), real), jnp.zeros((), jnp.int32), zero)
  v, time, _, count, worst = lax.while_loop(unfinished, advance, start)
  v = jnp.where(time >= t - tiny, v, jnp.nan)
  return AdaptiveFlow(sites.unflatten(v, lattice), count, worst)


def _embedded(v: Array, lattice: sites.Extents, h: Array) -> tuple[Array, Array]:
  """One third-order step and its distance to the second-order one, exp(h (2 Z1 - Z0)) V."""
  z0 = velocity(v, lattice)
  stage = group.mul(exponential.exp(h / 4 * z0), v)
  z1 = velocity(stage, lattice)
  stage = group.mul(exponential.exp(h * (8 / 9 * z1 - 17 / 36 * z0)), stage)
  z2 = velocity(stage, lattice)
  third = group.mul(exponential.exp(h * (3 / 4 * z2 - 8 / 9 * z1 + 17 / 36 * z0)), stage)
  second = group.mul(exponential.exp(h * (2 * z1 - z0)), v)
  return third, jnp.max(jnp.abs(third - second))
