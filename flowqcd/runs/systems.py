"""From a configuration to the library's objects: actions, flows, weights, kernels."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flowqcd.flows import coupling, family, hopping, ptcn, residual, trivializing
from flowqcd.lattice import integrators, precision, spin
from flowqcd.mcmc import hmc
from flowqcd.models import conditional, marginal, priors
from flowqcd.runs.settings import Experiment, Theory
from flowqcd.theory import determinant, dirac, gauge, pseudofermion
from flowqcd.training import objectives
from flowqcd.types import Action, Array, ConditionalFlow, Flow, Kernel, Key, Params

INTEGRATORS = {
  "leapfrog": integrators.LEAPFROG,
  "omelyan2": integrators.OMELYAN2,
  "omelyan4": integrators.OMELYAN4,
}


def dtype(precision: str) -> jnp.dtype:
  """Complex dtype of single or double precision."""
  return jnp.dtype("complex64" if precision == "single" else "complex128")


def in_precision(params: Params, dtype: jnp.dtype) -> Params:
  """Parameters in the real precision that belongs to a complex dtype."""
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.finfo(dtype).dtype), params)


def flow_target(theory: Theory) -> trivializing.Target:
  """What the analytic flow aims at: the gauge action and the leading hopping terms of the quarks."""
  if theory.num_flavours:
    return trivializing.two_flavours(theory.beta, theory.kappa, theory.nc, theory.lattice, theory.boundary)
  return trivializing.pure_gauge(theory.beta, len(theory.lattice))


def marginal_model(config: Experiment, dtype: jnp.dtype) -> marginal.Marginal:
  """The configured prior pushed through the configured flow, on links of this type."""
  return marginal.make(link_prior(config, dtype), link_flow(config))


def link_prior(config: Experiment, dtype: jnp.dtype) -> priors.Prior:
  """The configured prior."""
  theory, prior = config.theory, config.prior
  if prior.beta:
    return priors.heat_bath(prior.beta, theory.nc, theory.lattice, dtype, prior.sweeps)
  return priors.haar(theory.nc, theory.lattice, dtype)


def link_flow(config: Experiment) -> Flow:
  """The configured flow of the links."""
  theory = config.theory
  if config.marginal == "spectral":
    return coupling.make(config.coupling, theory.nc, theory.lattice)
  if config.marginal == "residual":
    return residual.make(config.residual, flow_target(theory).beta, theory.nc, theory.lattice)
  if config.family.betas:
    return link_family(config).at(family.Couplings(theory.beta, theory.kappa if theory.num_flavours else 0.0))
  return trivializing.make(config.flow, flow_target(theory), theory.nc, theory.lattice)


def family_polynomial(config: Experiment) -> family.Config:
  """The polynomial of the configured family, in units of the largest couplings."""
  plan = config.family
  return family.Config(max(plan.betas), max(plan.kappas, default=0.0), plan.order)


def link_family(config: Experiment) -> family.Family:
  """The configured family of flows."""
  theory = config.theory
  return family.make(family_polynomial(config), config.flow, theory.nc, theory.lattice, theory.boundary)


def family_at(
  config: Experiment, dtype: jnp.dtype
) -> Callable[[family.Couplings], tuple[marginal.Marginal, objectives.Target]]:
  """couplings -> the family's model there and its target, with the determinant exact, or to leading order for none."""
  theory, members, prior = config.theory, link_family(config), link_prior(config, dtype)

  def value(couplings: family.Couplings, u: Array) -> Array:
    if not theory.num_flavours:
      return gauge.wilson(u, couplings.beta)
    if config.training.determinant == "exact":
      return gauge.wilson(u, couplings.beta) - 2 * determinant.log_det(u, couplings.kappa, theory.boundary)
    return trivializing.target_action(members.target(couplings), u)

  def at(couplings: family.Couplings) -> tuple[marginal.Marginal, objectives.Target]:
    target = objectives.Target(lambda key, u: value(couplings, u), lambda u: value(couplings, u))
    return marginal.make(prior, members.at(couplings)), target

  return at


def conditional_model(config: Experiment, precision: str, mu0: float = 0.0) -> conditional.Conditional:
  """The configured model of pseudofermions with its action, for fields of this precision, regulated by mu0 in training.

  With a Hasenbusch mass, W = M + i mass gamma5: one factor aims at W, the other at W^{-1} M.
  """
  theory, choice = config.theory, config.conditional
  # Errors of the actions' values go with the square of these, gradients for training with the first power.
  tolerances = (1e-6, 1e-6) if precision == "double" else (1e-5, 1e-5)
  if not choice.even_odd:
    action = pseudofermion.plain(theory.kappa, theory.boundary, mu0, tolerances)
    return conditional.make([conditional.Factor(_pseudofermions(config, 0.0), action, 1)])
  light = _pseudofermions(config, 0.0)
  if not choice.hasenbusch_mass:
    action = pseudofermion.even_odd(theory.kappa, theory.boundary, mu0, tolerances)
    return conditional.make([conditional.Factor(light, action, 2)])
  heavy = _pseudofermions(config, choice.hasenbusch_mass)
  first, second = pseudofermion.hasenbusch(theory.kappa, choice.hasenbusch_mass, theory.boundary, tolerances)
  ratio = conditional.chain(light, conditional.inverted(heavy))
  return conditional.make([conditional.Factor(heavy, first, 2), conditional.Factor(ratio, second, 2)])


def _pseudofermions(config: Experiment, twist: float) -> ConditionalFlow:
  """The flow that aims at M + i twist gamma5 on odd sites, or at D on all of them."""
  theory, choice = config.theory, config.conditional
  expansion = hopping.odd(choice.hopping, theory.kappa, theory.lattice, theory.boundary, twist)
  if not choice.even_odd:
    expansion = hopping.full(expansion, theory.kappa, theory.boundary)
  networks = (ptcn.odd if choice.even_odd else ptcn.full)(choice.ptcn, theory.nc, theory.lattice, theory.boundary)
  if choice.kind == "hopping":
    return expansion
  return networks if choice.kind == "ptcn" else conditional.chain(networks, expansion)


def log_det(theory: Theory, u: Array) -> Array:
  """ln det D D^dag of the quarks, exact; zero for pure gauge theory."""
  if not theory.num_flavours:
    return jnp.zeros((), u.real.dtype)
  return 2 * determinant.log_det(u, theory.kappa, theory.boundary)


def hmc_action(config: Experiment) -> Action:
  """The gauge action plus pseudofermions, whose determinant is that of `log_det`."""
  theory, parts = config.theory, [gauge.action(config.theory.beta)]
  mixed = config.precision == "double" and config.hmc.single_forces
  # Errors of energies go with the square of their solver's; those of forces cost acceptance, but no exactness.
  tolerances = (1e-4 if mixed else 1e-6, 1e-5 if config.precision == "single" else 1e-7)
  if theory.num_flavours and config.hmc.hasenbusch_mass:
    parts += pseudofermion.hasenbusch(theory.kappa, config.hmc.hasenbusch_mass, theory.boundary, tolerances)
  elif theory.num_flavours:
    parts.append(pseudofermion.even_odd(theory.kappa, theory.boundary, 0.0, tolerances))
  action = gauge.total(*parts)
  return action._replace(force=precision.in_single(action.force)) if mixed else action


def hmc_kernel(config: Experiment) -> Kernel:
  """HMC of the configuration."""
  run = config.hmc
  return hmc.make(hmc_action(config), run.tau, run.steps, INTEGRATORS[run.integrator])


def training_target(config: Experiment) -> objectives.Target:
  """S_g - ln det(D D^dag + mu0) for training; its gradient exact or by noise vectors; its logged value without the
  regulator, and with noise vectors approximate."""
  theory, training = config.theory, config.training
  kind = training.determinant if theory.num_flavours else "none"
  if kind == "exact":
    action = lambda u: (
      gauge.wilson(u, theory.beta) - determinant.log_det_regulated(u, theory.kappa, theory.boundary, training.mu0)
    )
    return objectives.Target(lambda key, u: action(u), lambda u: gauge.wilson(u, theory.beta) - log_det(theory, u))
  approximate = lambda u: trivializing.target_action(flow_target(theory), u)
  if kind == "none":
    return objectives.Target(lambda key, u: gauge.wilson(u, theory.beta), approximate)
  nd, volume = len(theory.lattice), 1
  for extent in theory.lattice:
    volume *= extent
  operator_of, parities = (dirac.schur, 2) if training.even_odd else (dirac.wilson, 1)
  surrogate = determinant.stochastic_surrogate(
    lambda u: operator_of(u, theory.kappa, theory.boundary),
    (spin.components(nd), theory.nc, volume // parities),
    training.mu0,
    training.num_noise,
  )

  def gradient(key: Key, u: Array) -> Array:
    return gauge.wilson(u, theory.beta) - surrogate(key, u)

  return objectives.Target(gradient, approximate)
