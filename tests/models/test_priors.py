import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import slow

from flowqcd.analysis import weights
from flowqcd.flows import conv, coupling
from flowqcd.lattice import checkerboard
from flowqcd.models import marginal, priors
from flowqcd.theory import gauge, observables, torus

LATTICE = (4, 4)


@pytest.mark.parametrize("nc, beta", [(1, 1.5), (2, 2.0), slow(3, 3.0)])
def test_heat_bath_prior_has_the_exact_plaquette(nc, beta):
  prior = priors.heat_bath(beta, nc, LATTICE, jnp.complex128, sweeps=10)
  measure = jax.jit(jax.vmap(lambda key: observables.mean_plaquette(prior.sample(key))))
  found = np.asarray(measure(jax.random.split(jax.random.key(1), 1000)))
  assert abs(found.mean() - torus.exact(nc, beta, 16).plaquette) < 4 * found.std() / 1000**0.5


def test_density_is_the_boltzmann_weight_and_ln_z_is_relative():
  """Weights of an untrained flow from beta = 1 to 1.4 give the exact plaquette there, and ln Z(1.4) - ln Z(1)."""
  prior = priors.heat_bath(1.0, 2, LATTICE, jnp.complex128, sweeps=10)
  flow = coupling.make(coupling.Config(layers=2, bins=4, net=conv.Config(hidden=(4,))), 2, LATTICE)
  model = marginal.make(prior, flow)
  params = model.init(jax.random.key(0))

  def one(key):
    u, log_q = model.sample(params, key)
    return -gauge.wilson(u, 1.4) - log_q, observables.mean_plaquette(u)

  log_w, plaquette = map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 1000)))
  estimate, log_z = weights.reweighted_mean(log_w, plaquette), weights.log_z(log_w)
  low, high = torus.exact(2, 1.0, 16), torus.exact(2, 1.4, 16)
  assert abs(estimate.value - high.plaquette) < 4 * estimate.error
  assert abs(log_z.value - (high.log_z - low.log_z)) < 4 * log_z.error
  sample = jax.jit(model.sample)(params, jax.random.key(3))
  assert float(jax.jit(model.log_prob)(params, sample.u)) == pytest.approx(float(sample.log_q), abs=1e-9)


def test_training_through_a_heat_bath_prior_has_gradients():
  prior = priors.heat_bath(1.0, 2, LATTICE, jnp.complex64, sweeps=2)
  flow = coupling.make(coupling.Config(layers=2, bins=4, net=conv.Config(hidden=(4,))), 2, LATTICE)
  model = marginal.make(prior, flow)
  gradient = jax.jit(jax.grad(lambda p: model.sample(p, jax.random.key(1)).log_q))(model.init(jax.random.key(0)))
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_impossible_priors_are_named():
  with pytest.raises(ValueError, match="at least one sweep"):
    priors.heat_bath(1.0, 2, LATTICE, jnp.complex64, sweeps=0)
  with pytest.raises(checkerboard.ParityError, match="even extents"):
    priors.heat_bath(1.0, 2, (3, 4), jnp.complex64).sample(jax.random.key(0))
