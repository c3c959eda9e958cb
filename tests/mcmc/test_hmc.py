import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checkers import check_kernel, check_reversible
from fields import links
from programs import slow

from flowqcd.lattice import group, integrators, precision, sites
from flowqcd.mcmc import hmc
from flowqcd.theory import determinant, gauge, observables, pseudofermion


def _starts(nc, lattice, streams):
  return np.stack([links(nc, lattice, seed) for seed in range(streams)])


@pytest.mark.parametrize("nc, lattice, table", [
  (1, (3, 5), integrators.OMELYAN2), (2, (2, 3, 4), integrators.LEAPFROG), (3, (2, 2, 2, 4), integrators.OMELYAN4),
])  # fmt: skip
def test_reversible_for_every_group_and_integrator(nc, lattice, table):
  check_reversible(gauge.action(2.0), links(nc, lattice), jax.random.key(1), integrator=table)


def test_reversible_with_quarks():
  action = gauge.total(gauge.action(2.0), *pseudofermion.hasenbusch(0.12, 0.3))
  check_reversible(action, links(2, (4, 4)), jax.random.key(2), tol=1e-10)


def test_reversible_with_forces_in_single_precision():
  """A rounded force is still a function of the links: the trajectory comes back to the last digits of double precision."""
  action = gauge.total(gauge.action(2.0), pseudofermion.even_odd(0.12, tolerances=(1e-4, 1e-7)))
  rounded = action._replace(force=precision.in_single(action.force))
  u = links(3, (4, 4))
  check_reversible(rounded, u, jax.random.key(2))
  fields = jax.jit(action.refresh)(jax.random.key(3), u).fields
  exactly = gauge.total(gauge.action(2.0), pseudofermion.even_odd(0.12))
  force, exact = (jax.jit(a.force)(u, fields) for a in (rounded, exactly))
  assert force.dtype == jnp.complex128
  assert 1e-9 < np.abs(force - exact).max() < 1e-3


@pytest.mark.parametrize("nc, beta", [(1, 2.0), (2, 2.2), slow(3, 4.0)])
def test_plaquette_on_a_2d_torus(nc, beta):
  exact = oracles.plaquette_2d(nc, beta, 16)
  kernel = hmc.make(gauge.action(beta), tau=1.0, steps=10, integrator=integrators.OMELYAN2)
  error = check_kernel(kernel, _starts(nc, (4, 4), 64), jax.random.key(nc), observables.mean_plaquette, exact, 150, 30)
  assert error < 0.004


@pytest.mark.parametrize("single_forces", [slow(False), True])
def test_creutz_equality_and_acceptance(single_forces):
  """<e^{-dH}> = 1 for thermalised configurations, and acceptance erfc(sqrt(<dH>)/2)."""
  action = gauge.total(gauge.action(2.0), pseudofermion.even_odd(0.15, tolerances=(1e-4, 1e-7)))
  if single_forces:
    action = action._replace(force=precision.in_single(action.force))
  kernel = hmc.make(action, tau=1.0, steps=4)
  u = _starts(1, (4, 4), 64)

  def body(u, key):
    state, info = jax.vmap(kernel.step)(jax.random.split(key, 64), hmc.State(u))
    return state.u, info

  _, info = jax.jit(lambda u, k: jax.lax.scan(body, u, k))(u, jax.random.split(jax.random.key(3), 150))
  delta_h = np.asarray(info.delta_h)[50:]
  values = np.exp(-delta_h).mean(axis=0)
  error = values.std(ddof=1) / 8
  assert abs(values.mean() - 1) < 4 * error and error < 0.02
  from scipy import special

  expected = special.erfc(np.sqrt(delta_h.mean()) / 2)
  assert np.asarray(info.accepted)[50:].mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.4])
def test_hmc_with_quarks_gives_the_plaquette_of_exact_reweighting(mu):
  """U(1) in 2D with N_f = 2: HMC (plain, even/odd, Hasenbusch) against reweighting from Haar with exact determinants."""
  beta, kappa, lattice = 0.5, 0.2, (2, 4)
  keys = jax.random.split(jax.random.key(5), 60_000)
  from flowqcd.models import priors

  prior = priors.haar(1, lattice, jnp.complex128)

  def weigh(key):
    u = prior.sample(key)
    log_w = 2 * determinant.log_det(u, kappa, None, mu) - gauge.wilson(u, beta)
    return log_w, observables.mean_plaquette(u)

  log_w, plaquette = jax.lax.map(weigh, keys, batch_size=100)
  w = jnp.exp(log_w - log_w.max())
  exact = float(jnp.sum(w * plaquette) / jnp.sum(w))
  exact_error = float(jnp.sqrt(jnp.sum((w * (plaquette - exact)) ** 2)) / jnp.sum(w))
  actions = [(pseudofermion.plain(kappa, mu0=mu**2),), (pseudofermion.even_odd(kappa, twisted_mass=mu),)]
  for quarks in actions if mu else [*actions, pseudofermion.hasenbusch(kappa, 0.5)]:
    kernel = hmc.make(gauge.total(gauge.action(beta), *quarks), tau=1.0, steps=6)
    error = check_kernel(
      kernel, _starts(1, lattice, 64), jax.random.key(6), observables.mean_plaquette, exact, 400, sigmas=5
    )
    assert max(error, exact_error) < 0.005


def test_links_stay_in_the_group_in_single_precision():
  kernel = hmc.make(gauge.action(5.0), tau=0.5, steps=5)
  u = links(3, (4, 4), dtype=jnp.complex64)

  def body(u, key):
    return kernel.step(key, hmc.State(u)).state.u, None

  u, _ = jax.jit(lambda u: jax.lax.scan(body, u, jax.random.split(jax.random.key(0), 300)))(u)
  assert u.dtype == jnp.complex64
  assert group.violation(sites.flatten(u)) < 2e-6


def test_the_change_of_a_large_energy_in_single_precision():
  """dH of a trajectory on 256^2, where H is 8e5 and has a rounding of 0.06, against double precision at the same ends."""
  lattice, action = (256, 256), gauge.total(gauge.action(9.0), gauge.action(1.0))
  x = group.gaussian(jax.random.key(0), (2, 1, 1, 256**2), jnp.complex64)
  u = sites.unflatten(jnp.exp(0.3 * x), lattice)
  momentum = group.gaussian(jax.random.key(1), x.shape, x.dtype)
  wide = lambda x: x.astype(jnp.complex128)
  evolve = jax.jit(lambda u, p, f: hmc.evolve(action, u, p, f, 0.1, 2))
  energy = jax.jit(lambda u, p, f: hmc.kinetic(wide(p)) + action.value(wide(u), f))
  fields = action.refresh(jax.random.key(2), u).fields
  end = evolve(u, momentum, fields)
  assert end.delta_h.dtype == jnp.float32
  before = energy(u, momentum, fields)
  assert abs(before) > 4e5
  assert abs(end.delta_h - (energy(end.u, end.momentum, fields) - before)) < 1e-3


def test_a_failed_solver_rejects():
  action = gauge.total(gauge.action(1.0), pseudofermion.even_odd(0.3, tolerances=(1e-40, 1e-40)))
  u = links(1, (4, 4))
  step = jax.jit(hmc.make(action).step)(jax.random.key(0), hmc.State(u))
  assert not np.isfinite(step.info.delta_h) and not step.info.accepted
  np.testing.assert_array_equal(step.state.u, u)


@pytest.mark.parametrize("tau, steps", [(0.0, 5), (-1.0, 5), (0.5, 0)])
def test_impossible_trajectories_are_named(tau, steps):
  with pytest.raises(ValueError, match="at least one step"):
    hmc.make(gauge.action(1.0), tau, steps)
