import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checkers import check_kernel
from fields import links
from programs import slow
from scipy import special, stats

from flowqcd.lattice import checkerboard, group, sites
from flowqcd.mcmc import heatbath, hmc, sweeps
from flowqcd.theory import gauge, observables


def _starts(nc, lattice, streams, dtype=jnp.complex128):
  return np.stack([links(nc, lattice, seed, dtype) for seed in range(streams)])


@pytest.mark.parametrize("nc, beta, overrelaxation", [
  (1, 4.0, 2), (2, 2.2, 0), (3, 6.0, 2), slow(1, 0.5, 0), slow(1, 0.5, 2), slow(1, 4.0, 0), slow(2, 2.2, 2),
  slow(3, 1.0, 0), slow(3, 1.0, 2), slow(3, 6.0, 0),
])  # fmt: skip
def test_plaquette_on_a_2d_torus(nc, beta, overrelaxation):
  exact = oracles.plaquette_2d(nc, beta, 16)
  kernel = heatbath.make(beta, overrelaxation)
  error = check_kernel(kernel, _starts(nc, (4, 4), 64), jax.random.key(7), observables.mean_plaquette, exact, 120, 30)
  assert error < 0.003


@pytest.mark.parametrize("a", [1e-9, 0.1, 1.9, 2.1, 30.0])
def test_su2_elements_follow_their_density(a):
  x = heatbath._su2_element(jax.random.key(0), jnp.full(40_000, a))
  assert group.violation(x) < 1e-13
  x0 = np.asarray(group.trace(x).real / 2)
  grid = np.linspace(-1, 1, 20_001)
  density = np.sqrt(1 - grid**2) * np.exp(a * (grid - 1))
  cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
  assert stats.kstest(x0, lambda t: np.interp(t, grid, cdf / cdf[-1])).pvalue > 1e-3
  # The direction is uniform on the sphere: each component over its radius is uniform in [-1, 1].
  n = np.asarray(x[0, 1].imag) / np.sqrt(1 - x0**2)
  assert stats.kstest(n, stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("a", [1e-9, 0.3, 5.0, 200.0])
def test_u1_elements_follow_von_mises(a):
  x = heatbath._von_mises(jax.random.key(1), jnp.full(40_000, a))[0, 0]
  np.testing.assert_allclose(np.abs(x), 1, atol=1e-13)
  assert stats.kstest(np.angle(x), stats.vonmises(a).cdf).pvalue > 1e-3
  expected = special.ive(1, a) / special.ive(0, a)
  assert abs(np.mean(x.real) - expected) < 4 * np.std(x.real) / 200


@pytest.mark.parametrize("nc, lattice", [(1, (4, 4)), (2, (2, 4, 2)), (3, (2, 2, 2, 4))])
def test_over_relaxation_moves_and_keeps_the_action(nc, lattice):
  u = links(nc, lattice)
  halves = jax.jit(sweeps.split)(u)
  relaxed = jax.jit(lambda x, n: heatbath.relaxed(x, lattice, n), static_argnums=1)
  once = relaxed(halves, 1)
  v = jax.jit(lambda x: sites.flatten(sweeps.merge(x, lattice)))(once)
  assert jax.jit(group.violation)(v) < 1e-12
  assert np.abs(np.asarray(v) - np.reshape(u, v.shape)).max() > 0.1
  after = gauge.wilson(np.reshape(v, u.shape), 1.0)
  np.testing.assert_allclose(after, gauge.wilson(u, 1.0), atol=1e-11)
  np.testing.assert_allclose(relaxed(halves, 2), relaxed(once, 1), atol=1e-12)
  np.testing.assert_allclose(relaxed(once, 0), once, atol=1e-12)


@pytest.mark.slow
def test_agrees_with_hmc_in_four_dimensions_and_single_precision():
  beta, u = 5.0, _starts(3, (2, 2, 2, 2), 32, jnp.complex64)
  both = []
  for kernel, steps in ((heatbath.make(beta), 150), (hmc.make(gauge.action(beta), 1.0, 12), 300)):

    def body(u, key, kernel=kernel):
      u = jax.vmap(kernel.step)(jax.random.split(key, 32), hmc.State(u)).state.u
      return u, jax.vmap(observables.mean_plaquette)(u)

    _, values = jax.jit(lambda u, k, body=body: jax.lax.scan(body, u, k))(u, jax.random.split(jax.random.key(4), steps))
    means = np.asarray(values)[steps // 3 :].mean(axis=0)
    both.append((means.mean(), means.std(ddof=1) / np.sqrt(32)))
  (a, da), (b, db) = both
  assert abs(a - b) < 4 * np.hypot(da, db) and np.hypot(da, db) < 0.005


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="beta >= 0"):
    heatbath.make(-1.0)
  kernel = heatbath.make(1.0)
  with pytest.raises(checkerboard.ParityError):
    kernel.step(jax.random.key(0), hmc.State(links(2, (3, 4))))
