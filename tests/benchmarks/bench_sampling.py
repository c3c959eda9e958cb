"""End-to-end rates at the paper's point and in pure gauge theory, 4^4."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks.conftest import Target

from flowqcd import presets
from flowqcd.analysis import statistics, weights
from flowqcd.experiment import Experiment
from flowqcd.mcmc import heatbath, hmc, link_flow
from flowqcd.models import joint, priors
from flowqcd.runs import conditionals, marginals, session
from flowqcd.runs import trajectories as plans
from flowqcd.theory import gauge, observables, pseudofermion

LATTICE = (4, 4, 4, 4)
BASE = presets.PRESETS["reproduce"]


def trajectories(config: Experiment, streams: int, count: int):
  """(u [streams], key) -> (u, (dH, accepted, plaquette) [count, streams])."""
  kernel = plans.kernel(config.theory, config.hmc, config.precision)

  def run(u, key):
    def body(u, key):
      state, info = jax.vmap(kernel.step)(jax.random.split(key, streams), hmc.State(u))
      return state.u, (info.delta_h, info.accepted, jax.vmap(observables.mean_plaquette)(state.u))

    return jax.lax.scan(body, u, jax.random.split(key, count))

  return run


def starts(config: Experiment, streams: int):
  dtype = session.dtype(config.precision)
  return jax.vmap(priors.haar(3, config.theory.lattice, dtype).sample)(jax.random.split(jax.random.key(0), streams))


@pytest.mark.parametrize(
  "flavours, precision, streams, most",
  [(0, "single", 16, 3.0), (0, "double", 16, None), (2, "single", 8, None), (2, "double", 8, 15.0)],
)
def test_hmc(kernel, flavours, precision, streams, most):
  """A trajectory of tau = 0.5 in five leapfrog steps; double: energies in double precision, forces in single."""
  theory = dataclasses.replace(BASE.theory, num_flavours=flavours)
  config = dataclasses.replace(BASE, theory=theory, precision=precision)
  run = trajectories(config, streams, 4)
  u, _ = jax.jit(trajectories(config, streams, 40))(starts(config, streams), jax.random.key(1))
  target = Target("cpu ms", most) if most else None
  kernel(run, u, jax.random.key(2), items=4 * streams, target=target)


@pytest.mark.parametrize("name", ["heatbath", "link_flow"])
def test_sweeps(kernel, name):
  """One sweep at beta = 5.7 and a microcanonical one; of the link flow one reflected one too."""
  step = {"heatbath": heatbath, "link_flow": link_flow}[name].make(5.7).step

  def run(u, key):
    def body(u, key):
      return jax.vmap(step)(jax.random.split(key, 16), hmc.State(u)).state.u, None

    return jax.lax.scan(body, u, jax.random.split(key, 8))[0]

  config = dataclasses.replace(BASE, precision="single")
  u = jax.jit(run)(starts(config, 16), jax.random.key(1))
  kernel(run, u, jax.random.key(2), items=8 * 16)


def weigh(config: Experiment):
  """key -> ln w of a sample of the joint model."""
  dtype = session.dtype(config.precision)
  model = marginals.model(config.links, config.theory, dtype)
  quarks = conditionals.model(config.conditional, config.theory, config.precision)
  params = session.in_precision(model.init(jax.random.key(0)), dtype)
  inner = session.in_precision(quarks.init(jax.random.key(0)), dtype)
  estimate = joint.log_determinant(quarks, config.conditional.draws, config.conditional.chunk)

  def one(key):
    first, second = jax.random.split(key)
    sample = model.sample(params, first)
    return estimate(inner, sample.u, second).log_mean - gauge.wilson(sample.u, config.theory.beta) - sample.log_q

  return one


def flow_config(precision: str, steps: int, draws: int) -> Experiment:
  return dataclasses.replace(
    BASE,
    precision=precision,
    flow=dataclasses.replace(BASE.flow, steps=steps),
    conditional=dataclasses.replace(BASE.conditional, draws=draws),
  )


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("steps", [1, 2])
def test_flow(kernel, precision, steps):
  """A sample of the marginal model."""
  config = flow_config(precision, steps, 1)
  model = marginals.model(config.links, config.theory, session.dtype(precision))
  params = session.in_precision(model.init(jax.random.key(0)), session.dtype(precision))
  kernel(jax.vmap(lambda key: model.sample(params, key)), jax.random.split(jax.random.key(1), 8), items=8)


@pytest.fixture(scope="module")
def hmc_cost():
  """(CPU ms per independent plaquette of HMC in double precision, what it is made of)."""
  streams, count = 8, 500
  u, _ = jax.jit(trajectories(BASE, streams, 100))(starts(BASE, streams), jax.random.key(3))
  run = jax.jit(trajectories(BASE, streams, count)).lower(u, jax.random.key(4)).compile()
  start = time.process_time()
  _, (_, accepted, plaquette) = jax.block_until_ready(run(u, jax.random.key(4)))
  each = 1e3 * (time.process_time() - start) / (streams * count)
  tau = statistics.gamma_method(np.asarray(plaquette).T)
  note = f"HMC {each:.1f} ms, tau_int {tau.tau_int:.2f}({tau.tau_int_error:.2f}), acceptance {np.mean(accepted):.4f}"
  return 2 * tau.tau_int * each, note


@pytest.mark.parametrize(
  "precision, steps, draws", [("single", 1, 1), ("single", 1, 2), ("double", 2, 1), ("double", 2, 16)]
)
def test_effective_configuration(kernel, report, hmc_cost, precision, steps, draws):
  """CPU time per effective configuration, flow (time / ESS) against HMC (time times 2 tau_int), in one run."""
  config = flow_config(precision, steps, draws)
  keys = jax.random.split(jax.random.key(2), 2048 if draws < 16 else 512)
  flow = kernel(jax.vmap(weigh(config)), keys[:8], items=8)
  log_w = np.asarray(jax.jit(lambda keys: jax.lax.map(weigh(config), keys, batch_size=8))(keys), np.float64)
  ess = float(weights.ess(log_w))
  mine, theirs = 1e3 * flow.cpu / ess, hmc_cost[0]
  report(
    {"items": len(log_w), "cpu ms": mine, "value": mine / theirs},
    Target("value", 0.5),
    f"ratio to HMC; ESS {ess:.4f}({weights.ess_error(log_w):.4f}); {hmc_cost[1]}",
  )


def test_accuracy_in_single_precision(report):
  """ln w of one Runge-Kutta step in single precision against four in double, at the same random fields."""
  cheap, exact = flow_config("single", 1, 1), flow_config("double", 4, 1)
  prior = priors.haar(3, LATTICE, jnp.complex128)
  quarks = conditionals.model(exact.conditional, exact.theory, "double")
  params = quarks.init(jax.random.key(0))

  def one(key):
    z = prior.sample(key)
    u, logdet = marginals.flow(exact.links, exact.theory).forward(
      marginals.flow(exact.links, exact.theory).init(key), z
    )
    phi = quarks.draw(params, u, key).phi
    weigh = lambda config, u, logdet: logdet - gauge.wilson(u, config.theory.beta) + _log_w_of_draw(config, u, phi)
    near, near_logdet = marginals.flow(cheap.links, cheap.theory).forward(
      session.in_precision(marginals.flow(cheap.links, cheap.theory).init(key), jnp.complex64), z.astype(jnp.complex64)
    )
    return weigh(exact, u, logdet), weigh(cheap, near, near_logdet)

  right, found = jax.lax.map(one, jax.random.split(jax.random.key(5), 32), batch_size=8)
  error = np.asarray(found, np.float64) - np.asarray(right)
  note = f"deviation of ln w between configurations; mean {error.mean():.1e}, only in ln Z"
  report({"items": 32, "value": float(error.std())}, Target("value", 1e-3), note)


def _log_w_of_draw(config: Experiment, u, phi):
  """-S_pf - log q at given pseudofermions, in the precision of u."""
  quarks = conditionals.model(config.conditional, config.theory, config.precision)
  params = session.in_precision(quarks.init(jax.random.key(0)), u.dtype)
  phi = jax.tree.map(lambda x: x.astype(u.dtype), phi)
  action = pseudofermion.even_odd(config.theory.kappa, config.theory.boundary, tolerances=(1e-5, 1e-5))
  return -action.value(u, phi[0]) - quarks.log_prob(params, u, phi)
