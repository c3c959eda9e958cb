"""Gauge actions and their forces: Wilson's, and those with rectangles beside the plaquettes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from flowqcd.lattice import group, loops, precision, rectangles, sites
from flowqcd.types import Action, Array, Refreshed, ScalarFunction, require_action, require_finite

LineCouplings = Sequence[float | Array]
"""One for each direction, or none at all."""

SYMANZIK = -1 / 12
"""c1 at tree level; Luescher and Weisz, Commun. Math. Phys. 97 (1985) 59."""
IWASAKI = -0.331
"""c1 of Iwasaki, arXiv:1111.7054 (UTHEP-118, 1983)."""
DBW2 = -1.4088
"""c1 of DBW2; QCD-TARO, hep-lat/9911033."""


@precision.compiled()
def wilson(u: Array, beta: float | Array) -> Array:
  """Wilson gauge action, -(beta/Nc) sum_x sum_{mu<nu} Re tr P_{mu nu}(x).

  u: links [Nd, Nc, Nc, *L]. Returns a scalar; the constant beta * #plaquettes is dropped. Wilson (1974), eq. 3.
  """
  return jnp.sum(_plaquette_terms(u, beta))


def _plaquette_terms(u: Array, beta: float | Array) -> Array:
  """-(beta/Nc) Re tr P: [planes, *L]."""
  return -(beta / u.shape[1]) * loops.plaquette_traces(u).real


@precision.compiled()
def wilson_force(u: Array, beta: float | Array) -> Array:
  """T^a d^a S of the Wilson action: (beta/(2 Nc)) TA(M), M the sum of plaquettes that start with the link.

  d^a S = -(beta/Nc) Re tr(T^a M) and T^a Re tr(T^a M) = -TA(M)/2. u: [Nd, Nc, Nc, *L], same shape out.
  """
  lattice, v = sites.extents(u), sites.flatten(u)
  force = (0.5 * beta / u.shape[1]) * group.project(loops.link_plaquettes(v, lattice))
  return sites.unflatten(force, lattice)


def plaquette_share(c1: float | Array) -> float | Array:
  """c0 = 1 - 8 c1: the plaquettes' coefficient where rectangles have c1, so that both are one F^2 in the continuum."""
  return 1 - 8 * c1


@precision.compiled()
def improved(u: Array, beta: float | Array, c1: float | Array) -> Array:
  """-(beta/Nc) [c0 sum Re tr P + c1 sum Re tr R], c0 = 1 - 8 c1, R all rectangles of two links by one, lying and standing.

  u: links [Nd, Nc, Nc, *L]. Returns a scalar, constants dropped. c1 = 0 is `wilson`; SYMANZIK, IWASAKI and DBW2 are others.
  """
  return wilson(u, plaquette_share(c1) * beta) + of_rectangles(u, c1 * beta)


@precision.compiled()
def of_rectangles(u: Array, beta: float | Array) -> Array:
  """-(beta/Nc) sum Re tr R, the part of `improved` with rectangles where beta is c1 times the action's. A scalar."""
  return jnp.sum(_rectangle_terms(u, beta))


def _rectangle_terms(u: Array, beta: float | Array) -> Array:
  """-(beta/Nc) Re tr R: [ordered pairs of directions, *L]."""
  return -(beta / u.shape[1]) * rectangles.traces(u).real


@precision.compiled()
def improved_force(u: Array, beta: float | Array, c1: float | Array) -> Array:
  """T^a d^a of `improved`: (beta/(2 Nc)) TA(c0 M + c1 M'), M' the sum of rectangles that start with the link, as M is of
  plaquettes. u: [Nd, Nc, Nc, *L], same shape out."""
  lattice, v = sites.extents(u), sites.flatten(u)
  around = rectangles.link_loops(v, lattice, plaquette_share(c1), c1)
  return sites.unflatten((0.5 * beta / u.shape[1]) * group.project(around), lattice)


@precision.of_input
def winding(u: Array, couplings: LineCouplings) -> Array:
  """sum_mu couplings_mu sum Re tr of the lines that wind around direction mu, each line once. u: [Nd, Nc, Nc, *L].

  The leading effect of quarks on a finite volume. Directions whose coupling is a zero are left out.
  Raises ValueError for another number of couplings than directions.
  """
  return sum((jnp.sum(term) for term in _winding_terms(u, couplings)), jnp.zeros((), u.real.dtype))


def _winding_terms(u: Array, couplings: LineCouplings) -> list[Array]:
  """coupling Re tr of the lines along each direction that has a coupling, each on the lattice without it."""
  trace = lambda line: jnp.real(sum(line[i, i] for i in range(u.shape[1])))
  return [jnp.asarray(coupling * trace(loops.polyakov_line(u, mu))) for mu, coupling in _present(couplings, u.shape[0])]


@precision.of_input
def winding_force(u: Array, couplings: LineCouplings) -> Array:
  """T^a d^a of `winding`: -(coupling_mu/2) TA(line), the line from the start of the link. [Nd, Nc, Nc, *L], as u."""
  lattice, v = sites.extents(u), sites.flatten(u)
  force = jnp.zeros_like(v)
  for mu, coupling in _present(couplings, u.shape[0]):
    force = force.at[mu].set(-0.5 * coupling * group.project(loops.winding_line(v, lattice, mu)))
  return sites.unflatten(force, lattice)


def _present(couplings: LineCouplings, nd: int) -> list[tuple[int, float | Array]]:
  if len(couplings) not in (0, nd):
    raise ValueError(f"lines need a coupling for each of {nd} directions, or none, not {len(couplings)}")
  return [(mu, c) for mu, c in enumerate(couplings) if isinstance(c, Array) or c]


def action(beta: float | Array, lines: LineCouplings = (), c1: float = 0.0) -> Action:
  """The Wilson action, with c1 the `improved` one, and `winding` lines where they have couplings.

  No auxiliary fields, forces by hand. Raises ValueError for couplings that are not finite.
  """
  require_finite(beta=beta, c1=c1)
  for coupling in lines:
    require_finite(line=coupling)

  def loops_value(u: Array) -> Array:
    return improved(u, beta, c1) if c1 else wilson(u, beta)

  def loops_force(u: Array) -> Array:
    return improved_force(u, beta, c1) if c1 else wilson_force(u, beta)

  def value(u: Array) -> Array:
    return loops_value(u) + winding(u, lines)

  def local(u: Array) -> list[Array]:
    rest = _winding_terms(u, lines)
    if not c1:
      return [_plaquette_terms(u, beta), *rest]
    return [_plaquette_terms(u, plaquette_share(c1) * beta), _rectangle_terms(u, c1 * beta), *rest]

  def force(u: Array) -> Array:
    return loops_force(u) + winding_force(u, lines) if _present(lines, u.shape[0]) else loops_force(u)

  return from_function(value, force, local)


def from_function(
  function: ScalarFunction,
  force: Callable[[Array], Array] | None = None,
  local: Callable[[Array], Any] | None = None,
) -> Action:
  """Any real function of the links as an action without auxiliary fields.

  force: u -> T^a d^a S; None for the Lie derivative by autodiff. local: u -> a tree of arrays whose entries add up to S, as
  of `Action`; None where S has no such form.
  """
  slope = group.lie_derivative(function) if force is None else force
  whole = Action(
    refresh=lambda key, u: Refreshed((), function(u), None if local is None else local(u)),
    value=lambda u, fields: function(u),
    force=lambda u, fields: slope(u),
    local=None if local is None else lambda u, fields: local(u),
  )
  return precision.of_links(whole)


def total(*actions: Action) -> Action:
  """The sum of actions; each keeps its own auxiliary fields, in a tuple. Raises TypeError for what is no Action."""
  if not actions:
    raise TypeError("a sum needs at least one Action")
  for each in actions:
    require_action(each)

  def refresh(key: Array, u: Array) -> Refreshed:
    keys = jax.random.split(key, len(actions))
    parts = [a.refresh(k, u) for a, k in zip(actions, keys)]
    fields, terms = tuple(part.fields for part in parts), tuple(part.terms for part in parts)
    return Refreshed(fields, precision.added(part.value for part in parts), terms)

  whole = Action(
    refresh=refresh,
    value=lambda u, fields: precision.added(a.value(u, f) for a, f in zip(actions, fields, strict=True)),
    force=lambda u, fields: precision.added(a.force(u, f) for a, f in zip(actions, fields, strict=True)),
    local=lambda u, fields: tuple(a.terms(u, f) for a, f in zip(actions, fields, strict=True)),
  )
  return precision.of_links(whole)
