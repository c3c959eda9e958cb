"""Heat bath and over-relaxation for the pure-gauge Wilson action: U(1), SU(2) and SU(3) by one sweep.

With W = U A, A the staple sum of a link, the weight of U -> g U is e^{(beta/Nc) Re tr g W}. For SU(2) subgroups
(Cabibbo and Marinari, Phys. Lett. B 119 (1982) 387) the block of W that g meets is k V plus something g does not see,
V in SU(2), so that x = g V has the density sqrt(1 - x_0^2) e^{a x_0}, x_0 = tr x / 2, a = 2 beta k/Nc. For U(1), g V
has the von Mises density.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import group, sites
from flowqcd.mcmc import sweeps
from flowqcd.mcmc.hmc import State, start
from flowqcd.theory import observables
from flowqcd.types import Array, Kernel, KernelStep, Key, require_state


class Info(NamedTuple):
  """change: of the per-plaquette average over the step."""

  change: Array


class _Trial(NamedTuple):
  """A value per site, and whether it is accepted."""

  value: Array
  accepted: Array


def make(beta: float | Array, overrelaxation: int = 1) -> Kernel:
  """One heat-bath sweep over all links and then `overrelaxation` microcanonical ones. Exact, no rejection.

  beta may be traced, and is not checked then. Works on links [Nd, Nc, Nc, *L], Nc = 1, 2, 3, with even extents. Raises
  ValueError for beta < 0, not finite, or overrelaxation < 0, ParityError for odd extents.
  """
  if overrelaxation < 0 or (not isinstance(beta, Array) and not 0 <= beta < float("inf")):
    raise ValueError(f"the heat bath needs beta >= 0 and overrelaxation >= 0, not {beta}, {overrelaxation}")

  def step(key: Key, state: State) -> KernelStep:
    require_state(state)
    lattice, nc = sites.extents(state.u), state.u.shape[1]
    strength = beta if nc == 1 else 2 * beta / nc
    heat = lambda key, u, staple: (_update_links(key, u, staple, lambda key, w: _heat(key, w, strength)), ())
    halves = sweeps.sweep(key, sweeps.split(state.u), lattice, heat).halves
    u = sweeps.merge(relaxed(halves, lattice, overrelaxation), lattice)
    return KernelStep(State(u), Info(observables.mean_plaquette(u) - observables.mean_plaquette(state.u)))

  return Kernel(start, step)


def relaxed(halves: Array, lattice: sites.Extents, count: int) -> Array:
  """`count` microcanonical sweeps, after which links are put back on the group. halves: as in `sweeps`."""
  reflect = lambda key, u, staple: (_update_links(key, u, staple, lambda _, w: _reflect(w)), ())
  unused = jax.random.key(0)
  again = lambda halves, _: (sweeps.sweep(unused, halves, lattice, reflect).halves, None)
  return group.reunitarise(lax.scan(again, halves, None, count)[0])


Choose = Callable[[Key, Array], Array]
"""(key, W block) -> g: a new element for the block [d, d, V] of W, d = 1 or 2."""


def _update_links(key: Key, u: Array, staple: Array, choose: Choose) -> Array:
  """New links [Nc, Nc, V] of one direction, one subgroup after the other."""
  nc = u.shape[0]
  if nc == 1:
    return group.mul(choose(key, group.mul(u, staple)), u)
  for i in range(nc):
    for j in range(i + 1, nc):
      key, draw = jax.random.split(key)
      w = group.mul(u, staple)
      block = jnp.stack([jnp.stack([w[i, i], w[i, j]]), jnp.stack([w[j, i], w[j, j]])])
      u = _rotate_rows(choose(draw, block), u, i, j)
  return u


def _rotate_rows(g: Array, u: Array, i: int, j: int) -> Array:
  """g u with the SU(2) element g [2, 2, V] acting on rows i and j."""
  rows = [u[k] for k in range(u.shape[0])]
  rows[i], rows[j] = g[0, 0] * u[i] + g[0, 1] * u[j], g[1, 0] * u[i] + g[1, 1] * u[j]
  return jnp.stack(rows)


def _polar(w: Array) -> tuple[Array, Array]:
  """(k, V): the part of a block that Re tr g w depends on is k V, V in U(1) or SU(2). Where k = 0, V = 1."""
  if w.shape[0] == 1:
    part = w
  else:
    # w + (its quaternionic conjugate, sigma_2 w^* sigma_2), halved.
    a, b = 0.5 * (w[0, 0] + w[1, 1].conj()), 0.5 * (w[0, 1] - w[1, 0].conj())
    part = jnp.stack([jnp.stack([a, b]), jnp.stack([-b.conj(), a.conj()])])
  k = jnp.sqrt(jnp.sum(jnp.abs(part[0]) ** 2, axis=0))
  unit = group.identity(w.shape[0], w.dtype)
  return k, jnp.where(k > 0, part / jnp.where(k > 0, k, 1), unit)


def _reflect(w: Array) -> Array:
  """Over-relaxation: g = (V^dag)^2 leaves Re tr g w = k Re tr V^dag as it was. Creutz, Phys. Rev. D 36 (1987) 515."""
  back = group.adjoint(_polar(w)[1])
  return group.mul(back, back)


def _heat(key: Key, w: Array, strength: float | Array) -> Array:
  """g = x V^dag with x of density e^{strength k Re tr x / d} on U(1) (d = 1) or SU(2) (d = 2)."""
  k, direction = _polar(w)
  # The floor changes the density by less than rounding, and keeps the formulas below finite at k = 0.
  a = jnp.maximum(strength * k, jnp.finfo(k.dtype).eps)
  draw = _von_mises if w.shape[0] == 1 else _su2_element
  return group.mul(draw(key, a), group.adjoint(direction))


def _until_accepted(key: Key, propose: Callable[[Key], _Trial]) -> Array:
  """Values of trials, each site trying anew until it accepts."""

  def again(state: tuple[Key, _Trial]) -> tuple[Key, _Trial]:
    key, old = state
    key, draw = jax.random.split(key)
    new = propose(draw)
    value = jnp.where(old.accepted, old.value, new.value)
    return key, _Trial(value, old.accepted | new.accepted)

  key, draw = jax.random.split(key)
  return lax.while_loop(lambda s: ~jnp.all(s[1].accepted), again, (key, propose(draw)))[1].value


def _von_mises(key: Key, a: Array) -> Array:
  """e^{i phi} of density e^{a cos phi}, [1, 1, V]. Best and Fisher, Appl. Stat. 28 (1979) 152."""
  root = jnp.sqrt(1 + 4 * a * a)
  tau = jnp.sqrt(1 + root)
  # Their rho = (tau^2 - sqrt(2) tau)/(2 a), written without the difference that cancels at small a.
  rho = tau / (tau + 2**0.5) * 2 * a / (root + 1)
  r = (1 + rho * rho) / (2 * rho)
  key, side = jax.random.split(key)

  def propose(key: Key) -> _Trial:
    first, second = jax.random.uniform(key, (2, *a.shape), a.dtype)
    z = jnp.cos(jnp.pi * first)
    f = (1 + r * z) / (r + z)
    c = a * (r - f)
    return _Trial(f, (c * (2 - c) > second) | (jnp.log(c / second) + 1 - c >= 0))

  cosine = jnp.clip(_until_accepted(key, propose), -1, 1)
  sine = jnp.sqrt(1 - cosine**2) * jax.random.rademacher(side, a.shape, a.dtype)
  return lax.complex(cosine, sine)[None, None]


def _su2_element(key: Key, a: Array) -> Array:
  """x of density e^{a x_0} with respect to Haar, x_0 = tr x / 2: [2, 2, V]."""
  first, second = jax.random.split(key)
  x0 = _until_accepted(first, lambda key: _su2_trial(key, a))
  n = jax.random.normal(second, (3, *a.shape), a.dtype)
  n = n * jnp.sqrt(jnp.maximum(1 - x0 * x0, 0) / jnp.sum(n * n, axis=0))
  diagonal, other = lax.complex(x0, n[2]), lax.complex(n[1], n[0])
  return jnp.stack([jnp.stack([diagonal, other]), jnp.stack([-other.conj(), diagonal.conj()])])


def _su2_trial(key: Key, a: Array) -> _Trial:
  """x_0 of density sqrt(1 - x_0^2) e^{a x_0}, by Creutz's trial for small a and Kennedy's and Pendleton's for large."""
  r = 1 - jax.random.uniform(key, (4, *a.shape), a.dtype)  # In (0, 1]: their logarithms are finite.
  # Creutz, Phys. Rev. D 21 (1980) 2308: e^{a x_0} exactly, then the root; accepts pi/4 of trials at a = 0.
  creutz = 1 + jnp.log1p(r[0] * jnp.expm1(-2 * a)) / a
  creutz_accepts = r[3] ** 2 <= 1 - creutz**2
  # Kennedy and Pendleton, Phys. Lett. B 156 (1985) 393: 1 - x_0 from three uniform numbers.
  delta = -(jnp.log(r[0]) + jnp.cos(2 * jnp.pi * r[1]) ** 2 * jnp.log(r[2])) / a
  accepts = r[3] ** 2 <= 1 - 0.5 * delta
  small = a < 2
  return _Trial(jnp.where(small, creutz, 1 - delta), jnp.where(small, creutz_accepts, accepts))
