"""Integrators as coefficient tables: symplectic ones for molecular dynamics, Runge-Kutta on groups for flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.lattice import exponential, group
from flowqcd.types import Array


class Symplectic(NamedTuple):
  """A splitting of one step of size one: momentum kicks and link drifts in turn, kick first and last.

  kicks has one entry more than drifts; both sum to one. Neighbouring kicks of consecutive steps are merged.
  """

  kicks: tuple[float, ...]
  drifts: tuple[float, ...]


LEAPFROG = Symplectic((0.5, 0.5), (1.0,))
"""Second order, error term largest; the paper's choice."""

_LAMBDA = 0.1931833275037836
OMELYAN2 = Symplectic((_LAMBDA, 1 - 2 * _LAMBDA, _LAMBDA), (0.5, 0.5))
"""Second order, minimal norm: Omelyan, Mryglod, Folk, Comput. Phys. Commun. 151 (2003) 272, eq. 31."""

_KICKS = (0.08398315262876693, 0.6822365335719091)
_DRIFTS = (0.2539785108410595, -0.03230286765269967)
OMELYAN4 = Symplectic(
  (*_KICKS, 0.5 - sum(_KICKS), 0.5 - sum(_KICKS), *_KICKS[::-1]),
  (*_DRIFTS, 1 - 2 * sum(_DRIFTS), *_DRIFTS[::-1]),
)
"""Fourth order with five forces, minimal norm: the same paper, eq. 63 and table 2."""


class RungeKutta(NamedTuple):
  """Low-storage Runge-Kutta on a group: Z_i = previous[i] Z_{i-1} + current[i] f_i, U <- exp(h Z_i) U at stage i.

  times[i] is when stage i evaluates f. quadrature integrates a scalar along the way with the same f evaluations.
  """

  previous: tuple[float, ...]
  current: tuple[float, ...]
  times: tuple[float, ...]
  quadrature: tuple[float, ...]


def low_storage(a: tuple[float, ...], b: tuple[float, ...]) -> RungeKutta:
  """The scheme dU_i = a_i dU_{i-1} + h f_i, U <- U + b_i dU_i of flat space, J. Comput. Phys. 35 (1980) 48, on a group.

  Exponentials in the place of sums keep its order: Bazavov, arXiv:2007.04225, proven for three, seen for higher ones.
  """
  stages = range(len(b))
  # Stage j enters dU_i with the weight a_{j+1} ... a_i.
  weight = [[math.prod(a[j + 1 : i + 1]) if i >= j else 0.0 for j in stages] for i in stages]
  return RungeKutta(
    previous=(0.0, *(a[i] * b[i] / b[i - 1] for i in stages[1:])),
    current=b,
    times=tuple(math.fsum(b[k] * weight[k][j] for k in range(i) for j in range(k + 1)) for i in stages),
    quadrature=tuple(math.fsum(b[i] * weight[i][j] for i in stages) for j in stages),
  )


LUESCHER3 = low_storage((0.0, -17 / 32, -32 / 27), (1 / 4, 8 / 9, 3 / 4))
"""Third order: Luescher, arXiv:1006.4518, appendix C."""

CARPENTER_KENNEDY4 = low_storage(
  (
    0.0,
    -567301805773 / 1357537059087,
    -2404267990393 / 2016746695238,
    -3550918686646 / 2091501179385,
    -1275806237668 / 842570457699,
  ),
  (
    1432997174477 / 9575080441755,
    5161836677717 / 13612068292357,
    1720146321549 / 2090206949498,
    3134564353537 / 4481467310338,
    2277821191437 / 14882151754819,
  ),
)
"""Fourth order in five stages: Carpenter and Kennedy, NASA TM-109112 (1994)."""


def trajectory(
  table: Symplectic,
  force: Callable[[Array], Array],
  u: Array,
  momentum: Array,
  tau: float,
  steps: int,
) -> tuple[Array, Array]:
  """Integrate dU/dtau = pi U, d pi/dtau = -T^a d^a S over a time tau.

  force: T^a d^a S of flat links. u, momentum: [Nd, Nc, Nc, V]. Returns the new (u, momentum).
  """
  kicks, drifts = _schedule(table, tau, steps)

  def body(state: tuple[Array, Array], sizes: tuple[Array, Array]) -> tuple[tuple, None]:
    u, p = state
    kick, drift = sizes
    p = p - kick * force(u)
    return (group.mul(exponential.exp(drift * p), u), p), None

  # One force in the compiled program, however many the trajectory has.
  real = u.real.dtype
  sizes = (jnp.asarray(kicks, real), jnp.asarray(drifts, real))
  (u, momentum), _ = lax.scan(body, (u, momentum), sizes)
  return u, momentum


def _schedule(table: Symplectic, tau: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Kicks and drifts of a whole trajectory in turn; the kick that ends a step is joined to the next one's first.

  The last drift is zero: e^0 = 1 exactly, so the links are left as they are.
  """
  h = tau / steps
  inner = list(zip(table.kicks[:-1], table.drifts))
  pairs = inner * steps + [(table.kicks[-1], 0.0)]
  kicks = np.array([k for k, _ in pairs])
  kicks[len(inner) : -1 : len(inner)] += table.kicks[-1]
  return h * kicks, h * np.array([d for _, d in pairs])


class Transport(NamedTuple):
  """End of a Runge-Kutta integration: the links and the integral of the scalar rate."""

  u: Array
  integral: Array


def transport(
  table: RungeKutta,
  rate: Callable[[Array, Array], tuple[Array, Array]],
  u: Array,
  start: float | Array,
  stop: float | Array,
  steps: int,
) -> Transport:
  """Integrate dU/dt = Z(t, U) U and dI/dt = r(t, U) from start to stop in equal steps.

  rate: (t, flat u) -> (Z, r). u: [Nd, Nc, Nc, V]. All stages of all steps are one scan with the table as data: the compiled
  program holds one evaluation of the rate, and reverse-mode derivatives exist.
  """
  h = (stop - start) / steps
  real = u.real.dtype
  # One row a stage: its time in steps from the start, and its line of the table.
  times = (np.arange(steps)[:, None] + np.array(table.times)).ravel()
  columns = [np.tile(column, steps) for column in (table.previous, table.current, table.quadrature)]
  rows = jnp.asarray(np.column_stack([times, *columns]), real)

  def stage(carry: tuple, row: Array) -> tuple[tuple, None]:
    u, z, integral = carry
    time, previous, current, quadrature = row
    velocity, r = rate(start + h * time, u)
    z = previous * z + h * current * velocity
    return (group.mul(exponential.exp(z), u), z, integral + h * quadrature * r), None

  carry = (u, jnp.zeros_like(u), jnp.zeros((), real))
  (u, _, integral), _ = lax.scan(jax.checkpoint(stage), carry, rows)
  return Transport(u, integral)
