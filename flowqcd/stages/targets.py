"""What a marginal model is trained for: actions with their gradients, exact or by noise vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from flowqcd.flows import family, trivializing
from flowqcd.lattice import spin
from flowqcd.models import marginal
from flowqcd.runs import families, marginals, priors, theories
from flowqcd.runs.theories import Theory
from flowqcd.stages.training import Training
from flowqcd.theory import determinant, dirac, pseudofermion
from flowqcd.training import objectives
from flowqcd.types import Array, Key


def target(theory: Theory, training: Training) -> objectives.Target:
  """S_g - ln det(D D^dag + mu^2 + mu0) for training; its gradient exact or by noise vectors; its logged value without the
  regulator, and with noise vectors approximate."""
  kind = training.determinant if theory.num_flavours else "none"
  if kind == "exact":
    mu0 = training.mu0 + theory.twisted_mass**2
    regulated = lambda u: determinant.log_det_regulated(u, theory.kappa, theory.boundary, mu0)
    exact = lambda u: theories.gauge_value(theory, u) - theories.log_det(theory, u)
    return objectives.Target(lambda key, u: theories.gauge_value(theory, u) - regulated(u), exact)
  approximate = lambda u: theories.leading_action(theory, u)
  if kind == "none":
    return objectives.Target(lambda key, u: theories.gauge_value(theory, u), approximate)
  surrogate = _surrogate(theory, training)
  return objectives.Target(lambda key, u: theories.gauge_value(theory, u) - surrogate(key, u), approximate)


def _surrogate(theory: Theory, training: Training) -> Callable[[Key, Array], Array]:
  """Of the same mean gradient as ln det(D D^dag + mu^2 + mu0), by noise vectors on odd sites or on all."""
  operator_of, parities, mu0 = noisy(theory, training)
  shape = (spin.components(len(theory.lattice)), theory.nc, math.prod(theory.lattice) // parities)
  return determinant.stochastic_surrogate(operator_of, shape, mu0, training.num_noise)


class Noisy(NamedTuple):
  """What noise vectors estimate: det(A A^dag + mu0), A = operator_of(u) on all sites (parities = 1) or odd ones (2)."""

  operator_of: pseudofermion.OperatorOf
  parities: int
  mu0: float


def noisy(theory: Theory, training: Training) -> Noisy:
  """The operator of a training's noise vectors."""
  kappa, boundary, mu = theory.kappa, theory.boundary, theory.twisted_mass
  if training.even_odd:
    return Noisy(lambda u: dirac.schur(u, kappa, boundary, mu), 2, training.mu0)
  return Noisy(lambda u: dirac.wilson(u, kappa, boundary), 1, training.mu0 + mu**2)


def family_at(
  theory: Theory, links: marginals.Choice, determinant_kind: str, dtype: jnp.dtype
) -> Callable[[family.Couplings], tuple[marginal.Marginal, objectives.Target]]:
  """couplings -> the family's model there and its target, with the determinant exact, or to leading order for none."""
  gauge_value = theories.gauge_kind(theory).value
  members, prior = families.make(links.family, links.settings, theory), priors.make(links.prior, theory, dtype)

  def value(couplings: family.Couplings, u: Array) -> Array:
    if not theory.num_flavours:
      return gauge_value(u, couplings.beta)
    if determinant_kind == "exact":
      return gauge_value(u, couplings.beta) - 2 * determinant.log_det(u, couplings.kappa, theory.boundary)
    return trivializing.target_action(members.target(couplings), u)

  def at(couplings: family.Couplings) -> tuple[marginal.Marginal, objectives.Target]:
    target = objectives.Target(lambda key, u: value(couplings, u), lambda u: value(couplings, u))
    return marginal.make(prior, members.at(couplings)), target

  return at
