import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import links
from programs import slow

from flowqcd.analysis import weights
from flowqcd.mcmc import annealing, heatbath, hmc
from flowqcd.models import priors
from flowqcd.theory import gauge, observables, pseudofermion, torus
from flowqcd.types import FlowResult, Kernel, KernelStep

LATTICE = (4, 4)


def _still(coupling):
  """A kernel that stays where it is."""
  return Kernel(
    lambda key, u: hmc.State(u),
    lambda key, state: KernelStep(state, hmc.Info(jnp.zeros(()), jnp.asarray(True), jnp.ones(()))),
  )


def test_without_moves_the_weight_is_that_of_reweighting():
  u = links(3, LATTICE, 1)
  end = annealing.make(gauge.action, [0.5, 1.0, 4.0], _still)(jax.random.key(0), u, jnp.asarray(0.3))
  np.testing.assert_allclose(end.log_w, 0.3 + gauge.wilson(u, 0.5) - gauge.wilson(u, 4.0), rtol=1e-13)
  np.testing.assert_array_equal(end.u, u)


def test_transport_counts_with_its_log_determinant_and_its_image():
  """Without moves, ln w changes by S_old(U) - S_new(f(U)) + ln |det f| in each stage."""
  u, image = links(3, LATTICE, 1), links(3, LATTICE, 2)
  transport = lambda v, old, new: FlowResult(jnp.where(new > 2, image, v), 0.7 * (new - old))
  end = annealing.make(gauge.action, [0.5, 1.0, 4.0], _still, transport)(jax.random.key(0), u, jnp.asarray(0.3))
  expected = 0.3 + gauge.wilson(u, 0.5) - gauge.wilson(image, 4.0) + 0.7 * 3.5
  assert abs(gauge.wilson(u, 4.0) - gauge.wilson(image, 4.0)) > 0.1
  assert float(end.log_w) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
  "nc, beta, moves", [(1, 1.0, "hmc"), slow(3, 4.0, "hmc"), (2, 2.5, "heatbath"), slow(3, 4.0, "heatbath")]
)
def test_partition_function_and_plaquette_on_a_2d_torus(nc, beta, moves):
  """From Haar links, few and far from equilibrium: ln Z and the plaquette are exact all the same."""
  count = 1024
  kernel_at = heatbath.make if moves == "heatbath" else lambda c: hmc.make(gauge.action(c), tau=1.0, steps=6)
  run = annealing.make(gauge.action, np.linspace(0.0, beta, 17), kernel_at)

  def one(key):
    first, second = jax.random.split(key)
    u = priors.haar(nc, LATTICE, jnp.complex128).sample(first)
    end = run(second, u, jnp.zeros(()))
    return end.log_w, observables.mean_plaquette(end.u), gauge.wilson(u, 0.0) - gauge.wilson(u, beta)

  keys = jax.random.split(jax.random.key(nc), count)
  log_w, plaquette, direct = map(np.asarray, jax.jit(lambda k: jax.lax.map(one, k, batch_size=64))(keys))
  exact = torus.exact(nc, beta, 16)
  found = weights.log_z(log_w)
  assert found.error < 0.06
  assert abs(found.value - exact.log_z) < 4 * found.error
  mean = weights.reweighted_mean(log_w, plaquette)
  assert mean.error < 0.01
  assert abs(mean.value - exact.plaquette) < 4 * mean.error
  assert weights.ess(log_w) > 2 * weights.ess(direct)


def test_bad_input():
  with pytest.raises(ValueError, match="at least two couplings"):
    annealing.make(gauge.action, [1.0])
  action_at = lambda beta: gauge.total(gauge.action(beta), pseudofermion.even_odd(0.1))
  with pytest.raises(ValueError, match="auxiliary fields"):
    annealing.make(action_at, [0.0, 1.0])(jax.random.key(0), links(3, LATTICE, 0), jnp.zeros(()))
