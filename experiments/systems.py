"""From a configuration to the library's objects: actions, flows, weights, kernels."""

from __future__ import annotations

import jax.numpy as jnp

from experiments.presets import Experiment, Theory
from flowqcd.flows import coupling, trivializing
from flowqcd.lattice import integrators, spin
from flowqcd.mcmc import hmc
from flowqcd.models import marginal, priors
from flowqcd.theory import determinant, dirac, gauge, pseudofermion
from flowqcd.training import objectives
from flowqcd.types import Action, Array, Flow, Kernel, Key

INTEGRATORS = {
  "leapfrog": integrators.LEAPFROG,
  "omelyan2": integrators.OMELYAN2,
  "omelyan4": integrators.OMELYAN4,
}


def flow_target(theory: Theory) -> trivializing.Target:
  """What the analytic flow aims at: the gauge action and the leading hopping terms of the quarks."""
  if theory.num_flavours:
    return trivializing.two_flavours(theory.beta, theory.kappa, theory.nc, theory.lattice, theory.boundary)
  return trivializing.pure_gauge(theory.beta, len(theory.lattice))


def marginal_model(config: Experiment, dtype: jnp.dtype) -> marginal.Marginal:
  """The configured prior pushed through the configured flow, on links of this type."""
  theory, prior = config.theory, config.prior
  if prior.beta:
    start = priors.heat_bath(prior.beta, theory.nc, theory.lattice, dtype, prior.sweeps)
  else:
    start = priors.haar(theory.nc, theory.lattice, dtype)
  return marginal.make(start, _flow(config))


def _flow(config: Experiment) -> Flow:
  theory = config.theory
  if config.marginal == "spectral":
    return coupling.make(config.coupling, theory.nc, theory.lattice)
  return trivializing.make(config.flow, flow_target(theory), theory.nc, theory.lattice)


def log_det(theory: Theory, u: Array) -> Array:
  """ln det D D^dag of the quarks, exact; zero for pure gauge theory."""
  if not theory.num_flavours:
    return jnp.zeros((), u.real.dtype)
  return 2 * determinant.log_det(u, theory.kappa, theory.boundary)


def hmc_action(config: Experiment) -> Action:
  """The gauge action plus pseudofermions, whose determinant is that of `log_det`."""
  theory, parts = config.theory, [gauge.action(config.theory.beta)]
  # Forces need less than the energies that decide on acceptance.
  tolerances = (1e-5, 1e-6) if config.precision == "single" else (1e-7, 1e-11)
  if theory.num_flavours and config.hmc.hasenbusch_mass:
    parts += pseudofermion.hasenbusch(theory.kappa, config.hmc.hasenbusch_mass, theory.boundary, tolerances)
  elif theory.num_flavours:
    parts.append(pseudofermion.even_odd(theory.kappa, theory.boundary, 0.0, tolerances))
  return gauge.total(*parts)


def hmc_kernel(config: Experiment) -> Kernel:
  """HMC of the configuration."""
  run = config.hmc
  return hmc.make(hmc_action(config), run.tau, run.steps, INTEGRATORS[run.integrator])


def training_target(config: Experiment) -> objectives.Target:
  """S_g - ln det(D D^dag + mu0) for training; its gradient exact or by noise vectors, its logged value approximate."""
  theory, training = config.theory, config.training
  kind = training.determinant if theory.num_flavours else "none"
  if kind == "exact":
    action = lambda u: (
      gauge.wilson(u, theory.beta) - determinant.log_det_regulated(u, theory.kappa, theory.boundary, training.mu0)
    )
    return objectives.Target(lambda key, u: action(u), action)
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
