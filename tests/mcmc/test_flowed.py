import jax
import jax.numpy as jnp
import numpy as np
import oracles
from checkers import check_kernel, check_reversible
from fields import initial, links

from flowqcd.flows import trivializing
from flowqcd.lattice import group, integrators
from flowqcd.mcmc import flowed, hmc
from flowqcd.theory import gauge, observables, pseudofermion

LATTICE = (4, 4)


def _flow(nc, beta, steps=2):
  config = trivializing.Config(steps=steps, lines=False)
  flow = trivializing.make(config, trivializing.pure_gauge(beta, 2), nc, LATTICE)
  return flow, initial(flow)


def test_reversible_with_quarks():
  flow, params = _flow(2, 1.5)
  target = gauge.total(gauge.action(1.5), pseudofermion.even_odd(0.12))
  check_reversible(flowed.action(target, flow, params), links(2, LATTICE), jax.random.key(2), tol=1e-9)


def test_the_fresh_value_is_the_value():
  flow, params = _flow(3, 2.0)
  action = flowed.action(gauge.total(gauge.action(2.0), pseudofermion.even_odd(0.12)), flow, params)
  z = links(3, LATTICE, 3)
  fresh = jax.jit(action.refresh)(jax.random.key(1), z)
  np.testing.assert_allclose(fresh.value, jax.jit(action.value)(z, fresh.fields), rtol=1e-9)


def test_plaquette_on_a_2d_torus():
  """A coarse flow: what it lacks in trivializing, acceptance makes up for."""
  nc, beta = 1, 1.0
  flow, params = _flow(nc, beta, steps=1)
  kernel = hmc.make(flowed.action(gauge.action(beta), flow, params), tau=1.0, steps=3, integrator=integrators.OMELYAN2)
  starts = np.stack([links(nc, LATTICE, seed) for seed in range(32)])
  plaquette = lambda z: observables.mean_plaquette(flow.forward(params, z).point)
  error = check_kernel(kernel, starts, jax.random.key(nc), plaquette, oracles.plaquette_2d(nc, beta, 16), 100, 20)
  assert error < 0.006


def test_a_trivialized_action_is_flat():
  """H hardly changes over trajectories on which HMC of the same steps in U is rejected."""
  nc, beta = 3, 2.0
  flow, params = _flow(nc, beta, steps=4)
  z, momentum = links(nc, LATTICE, 5), group.gaussian(jax.random.key(6), (2, nc, nc, 16), jnp.complex128)
  evolve = lambda action: jax.jit(lambda z, p: hmc.evolve(action, z, p, fields=(), tau=4.0, steps=4))(z, momentum)
  flat = evolve(flowed.action(gauge.action(beta), flow, params))
  plain = evolve(gauge.action(beta))
  assert abs(flat.delta_h) < 0.2 * abs(plain.delta_h)
