"""Hybrid Monte Carlo for any action, after Duane et al., Phys. Lett. B 195 (1987) 216.

Momenta are pi = p^a T^a with p^a standard normal, H = sum p^a p^a / 2 + S = -tr pi^2 + S, dU/dtau = pi U and
d pi/dtau = -T^a d^a S, which is Chroma's and the paper's normalisation of tau. (A code with generators lambda_a and the
same kinetic term, such as tmLQCD, calls the same trajectory half as long.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flowqcd.lattice import group, integrators, precision, sites
from flowqcd.types import Action, Array, Fields, Kernel, KernelStep, Key, require_action, require_state


class State(NamedTuple):
  """The Markov chain's position: links [Nd, Nc, Nc, *L]."""

  u: Array


def start(key: Key, u: Array) -> State:
  """The state of a chain that starts from links u: `init` of kernels without memory. Raises as `sites.extents`."""
  del key
  sites.extents(u)
  return State(precision.rounded(u, "a Markov chain of links"))


class Info(NamedTuple):
  """What happened in one trajectory. delta_h is not finite if a solver failed; such a proposal is rejected."""

  delta_h: Array
  accepted: Array
  probability: Array


class Evolution(NamedTuple):
  """End point of a molecular-dynamics trajectory and the change of H over it."""

  u: Array
  momentum: Array
  delta_h: Array


def kinetic(momentum: Array) -> Array:
  """-tr pi^2 summed over links = sum p^a p^a / 2. momentum: [Nd, Nc, Nc, V]."""
  return jnp.sum(_kinetic_terms(momentum))


def _kinetic_terms(momentum: Array) -> Array:
  """-tr pi^2 of each link."""
  return 0.5 * group.norm2(momentum)


def _change(before: Any, after: Any) -> Array:
  """Sum of the entries of one tree of arrays less those of another, by differences of entries."""
  differences = jax.tree.map(lambda a, b: b - a, before, after)
  return precision.added(map(precision.pairwise_sum, jax.tree.leaves(differences)))


def evolve(
  action: Action,
  u: Array,
  momentum: Array,
  fields: Fields,
  tau: float,
  steps: int,
  integrator: integrators.Symplectic = integrators.LEAPFROG,
  terms: Any = None,
) -> Evolution:
  """One molecular-dynamics trajectory at fixed auxiliary fields: reversible, without the accept step.

  u: [Nd, Nc, Nc, *L]; momentum: [Nd, Nc, Nc, V]; terms: action.terms(u, fields), where they are known. Flip the momentum
  and evolve again to come back. delta_h is a sum of local differences: H itself rounds, in single precision, by 0.06
  on 16^4.
  """
  lattice = sites.extents(u)
  shaped = lambda v: sites.unflatten(v, lattice)
  force = lambda v: sites.flatten(action.force(shaped(v), fields))
  before = _kinetic_terms(momentum), action.terms(u, fields) if terms is None else terms
  v, momentum = integrators.trajectory(integrator, force, sites.flatten(u), momentum, tau, steps)
  end = shaped(v)
  after = _kinetic_terms(momentum), action.terms(end, fields)
  return Evolution(end, momentum, _change(before, after))


def make(
  action: Action,
  tau: float = 0.5,
  steps: int = 5,
  integrator: integrators.Symplectic = integrators.LEAPFROG,
) -> Kernel:
  """HMC kernel for an action; the defaults are the paper's. `jax.vmap` its step for independent streams.

  Raises ValueError for tau <= 0 or steps < 1, TypeError where `action` is no Action.
  """
  require_action(action)
  if not 0 < tau < float("inf") or steps < 1:
    raise ValueError(f"a trajectory needs tau > 0 and at least one step, not tau = {tau}, {steps}")

  def step(key: Key, state: State) -> KernelStep:
    require_state(state)
    fields_key, momentum_key, accept_key = jax.random.split(key, 3)
    u = state.u
    fresh = action.refresh(fields_key, u)
    momentum = group.gaussian(momentum_key, (*u.shape[:3], u[0, 0, 0].size), u.dtype)
    end = evolve(action, u, momentum, fresh.fields, tau, steps, integrator, fresh.terms)
    # exp of a clipped argument: overflow for large negative dH would give inf, and NaN must stay NaN.
    probability = jnp.exp(jnp.minimum(-end.delta_h, 0.0))
    probability = jnp.where(jnp.isfinite(end.delta_h), probability, 0.0)
    accepted = jax.random.uniform(accept_key, (), probability.dtype) < probability
    # The group is left by rounding only; without this it drifts away over thousands of trajectories.
    new = sites.unflatten(group.reunitarise(sites.flatten(end.u)), sites.extents(u))
    chosen = jnp.where(accepted, new, u)
    return KernelStep(State(chosen), Info(end.delta_h, accepted, probability))

  return Kernel(start, step)
