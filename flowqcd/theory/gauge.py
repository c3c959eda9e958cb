"""The Wilson gauge action and its force."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flowqcd.lattice import group, loops, sites
from flowqcd.types import Action, Array, Refreshed, ScalarFunction


def wilson(u: Array, beta: float) -> Array:
  """Wilson gauge action, -(beta/Nc) sum_x sum_{mu<nu} Re tr P_{mu nu}(x).

  u: links [Nd, Nc, Nc, *L]. Returns a scalar; the constant beta * #plaquettes is dropped. Wilson (1974), eq. 3.
  """
  return -(beta / u.shape[1]) * jnp.sum(loops.plaquette_traces(u).real)


def wilson_force(u: Array, beta: float) -> Array:
  """T^a d^a S of the Wilson action: (beta/(2 Nc)) TA(M), M the sum of plaquettes that start with the link.

  d^a S = -(beta/Nc) Re tr(T^a M) and T^a Re tr(T^a M) = -TA(M)/2. u: [Nd, Nc, Nc, *L], same shape out.
  """
  lattice, v = sites.extents(u), sites.flatten(u)
  force = (0.5 * beta / u.shape[1]) * group.project(loops.link_plaquettes(v, lattice))
  return sites.unflatten(force, lattice)


def action(beta: float) -> Action:
  """The Wilson action as a contract: no auxiliary fields, hand-written force."""
  return Action(
    refresh=lambda key, u: Refreshed((), wilson(u, beta)),
    value=lambda u, fields: wilson(u, beta),
    force=lambda u, fields: wilson_force(u, beta),
  )


def from_function(function: ScalarFunction) -> Action:
  """Any real function of the links as an action; the force is its Lie derivative by autodiff."""
  return Action(
    refresh=lambda key, u: Refreshed((), function(u)),
    value=lambda u, fields: function(u),
    force=lambda u, fields: group.lie_derivative(function)(u),
  )


def total(*actions: Action) -> Action:
  """The sum of actions; each keeps its own auxiliary fields, in a tuple."""

  def refresh(key: Array, u: Array) -> Refreshed:
    keys = jax.random.split(key, len(actions))
    parts = [a.refresh(k, u) for a, k in zip(actions, keys)]
    return Refreshed(tuple(part.fields for part in parts), sum(part.value for part in parts))

  return Action(
    refresh=refresh,
    value=lambda u, fields: sum(a.value(u, f) for a, f in zip(actions, fields)),
    force=lambda u, fields: sum(a.force(u, f) for a, f in zip(actions, fields)),
  )
