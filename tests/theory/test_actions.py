import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import check_action, transform_spinor
from fields import DATA, links, unit_links
from programs import slow

from flowqcd.lattice import checkerboard, group, sites
from flowqcd.mcmc import hmc
from flowqcd.theory import determinant, gauge, observables, pseudofermion

GAUGE = pytest.mark.parametrize("nc, lattice", [(1, (3, 4)), (2, (2, 3, 4)), (3, (4, 3)), (3, (2, 3, 2, 4))])
QUARKS = pytest.mark.parametrize("nc, lattice", [(1, (4, 6)), slow(2, (4, 4)), (3, (2, 2, 2, 2))])


def _odd_transform(lattice):
  def transform(phi, g):
    full = checkerboard.merge(jnp.zeros_like(phi), phi, lattice)
    return checkerboard.split(transform_spinor(full, g), lattice)[1]

  return transform


@GAUGE
def test_gauge_action_and_force(nc, lattice):
  u = links(nc, lattice)
  check_action(gauge.action(2.7), u, jax.random.key(0))
  by_hand = gauge.wilson_force(u, 2.7)
  autodiff = gauge.from_function(lambda u: gauge.wilson(u, 2.7))
  by_autodiff = jax.jit(autodiff.force)(u, ())
  np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-12)


RECTANGLES = pytest.mark.parametrize("nc, lattice, c1", [
  (1, (3, 4), gauge.SYMANZIK), (2, (5, 4), gauge.DBW2), (3, (2, 3), gauge.IWASAKI), slow(2, (2, 3, 4), gauge.IWASAKI),
  (3, (2, 3, 2, 4), gauge.DBW2),
])  # fmt: skip


@RECTANGLES
def test_actions_with_rectangles(nc, lattice, c1):
  """Also on extents of two, where rectangles wind and run over links twice."""
  u = links(nc, lattice)
  check_action(gauge.action(1.3, c1=c1), u, jax.random.key(0))
  by_hand = gauge.improved_force(u, 1.3, c1)
  by_autodiff = jax.jit(group.lie_derivative(lambda u: gauge.improved(u, 1.3, c1)))(u)
  np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-11)


def test_without_rectangles_the_action_is_wilsons():
  u = links(3, (4, 3))
  np.testing.assert_allclose(gauge.improved(u, 2.0, 0.0), gauge.wilson(u, 2.0), rtol=1e-14)
  np.testing.assert_allclose(gauge.improved_force(u, 2.0, 0.0), gauge.wilson_force(u, 2.0), atol=1e-13)
  # The same field strength: on smooth links of U(1), P = e^{i f} and R = e^{2 i f}, all actions begin with beta f^2/2.
  f = 1e-3
  phases = np.exp(1j * f * np.arange(4))[:, None] * np.ones((4, 4))
  smooth = np.stack([np.ones((4, 4)), phases]).reshape(2, 1, 1, 4, 4).astype(complex)
  inner = lambda terms: np.sum([np.sum(np.asarray(x)[..., 0, :]) for x in terms])
  at = lambda u, c1: inner(gauge.action(1.0, c1=c1).local(u, ()))
  for c1 in (0.0, gauge.SYMANZIK, gauge.DBW2):
    change = at(smooth, c1) - at(np.ones_like(smooth), c1)
    np.testing.assert_allclose(change, 4 * f**2 / 2, rtol=1e-4)


@GAUGE
def test_winding_lines(nc, lattice):
  u, couplings = links(nc, lattice), (0.7, 0.0, -0.4, 0.3)[: len(lattice)]
  check_action(gauge.action(1.3, couplings), u, jax.random.key(0))
  by_hand = gauge.winding_force(u, couplings)
  by_autodiff = jax.jit(group.lie_derivative(lambda u: gauge.winding(u, couplings)))(u)
  np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-12)
  # Unit links: as many lines as sites across, each with the trace Nc.
  volume = np.prod(lattice)
  total = sum(c * nc * volume / n for c, n in zip(couplings, lattice))
  np.testing.assert_allclose(gauge.winding(unit_links(nc, lattice), couplings), total)
  with pytest.raises(ValueError, match=f"each of {len(lattice)} directions"):
    gauge.winding(u, couplings[:1])


@QUARKS
def test_pseudofermion_actions(nc, lattice):
  u, key = links(nc, lattice), jax.random.key(3)
  odd = _odd_transform(lattice)
  check_action(pseudofermion.plain(0.15, mu0=0.02), u, key, transform_spinor, 1e-5)
  # Its other part is even_odd with a regulator.
  check_action(pseudofermion.hasenbusch(0.15, 0.4)[1], u, key, odd, 1e-5)
  check_action(pseudofermion.even_odd(0.15, twisted_mass=0.4), u, key, odd, 1e-5)
  total = gauge.total(gauge.action(1.3), pseudofermion.even_odd(0.15))
  check_action(total, u, key, lambda f, g: (f[0], odd(f[1], g)), 1e-5)


def test_pseudofermions_integrate_to_the_determinant():
  """E[e^{-S(u') + S(u)}] over fields refreshed at u is det(u')/det(u), for every variant."""
  u, kappa, mu0 = links(1, (4, 4)), 0.22, 0.05
  log_det = jax.jit(lambda u: 2 * determinant.log_det(u, kappa))
  log_det_regulated = jax.jit(lambda u: determinant.log_det_regulated(u, kappa, None, mu0))
  # Along the slope of the determinant, which changes by half then; along any other direction it hardly would.
  x = np.asarray(jax.jit(group.lie_derivative(log_det))(u))
  other = np.exp(0.1 * x / np.sqrt(np.mean(np.abs(x) ** 2))) * np.asarray(u)
  exact, regulated = (float(f(other) - f(u)) for f in (log_det, log_det_regulated))
  variants = (
    (pseudofermion.plain(kappa), exact),
    (pseudofermion.plain(kappa, mu0=mu0), regulated),
    (pseudofermion.even_odd(kappa), exact),
    (pseudofermion.even_odd(kappa, twisted_mass=mu0**0.5), regulated),
    (gauge.total(*pseudofermion.hasenbusch(kappa, 0.5)), exact),
  )
  for action, log_ratio in variants:

    def ratio(key, action=action):
      fields = action.refresh(key, u).fields
      return jnp.exp(action.value(u, fields) - action.value(other, fields))

    values = np.asarray(jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(2), 6000)))
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - np.exp(log_ratio)) < 4 * error
    assert 10 * error < abs(np.exp(log_ratio) - 1)


def test_the_value_of_a_fresh_field_is_the_gaussian_norm():
  # S = |chi|^2 at refresh: mean dim, the number of complex components.
  u = links(3, (2, 2, 2, 2))
  for action, parities in ((pseudofermion.plain(0.12), 1), (pseudofermion.even_odd(0.12), 2)):
    value = jax.jit(jax.vmap(lambda k, a=action: a.value(u, a.refresh(k, u).fields)))
    found = np.asarray(value(jax.random.split(jax.random.key(4), 400)))
    dim = 12 * 16 // parities
    assert abs(found.mean() - dim) < 4 * found.std() / 20
    assert found.std() == pytest.approx(np.sqrt(dim), rel=0.15)


def test_an_unconverged_solver_gives_nan_not_a_number():
  u = links(3, (2, 2, 2, 2))
  action = pseudofermion.even_odd(0.4, tolerances=(1e-40, 1e-40))
  assert np.isnan(jax.jit(lambda u: action.value(u, action.refresh(jax.random.key(0), u).fields))(u))


def test_hasenbusch_needs_a_mass():
  with pytest.raises(ValueError, match="positive"):
    pseudofermion.hasenbusch(0.1, 0.0)


def test_a_twisted_mass_needs_no_regulator():
  with pytest.raises(ValueError, match="set mu0 = 0, not 0.1"):
    pseudofermion.even_odd(0.1, mu0=0.1, twisted_mass=0.2)


def _tmlqcd_links(name):
  raw = np.fromfile(DATA / "tmlqcd" / "trajectory_eo" / name, "<c16")
  return jnp.asarray(sites.from_sites_first(raw.reshape(4, 4, 4, 4, 4, 3, 3)))


def _tmlqcd_algebra(name):
  raw = np.fromfile(DATA / "tmlqcd" / "trajectory_eo" / name, "<f8")
  return np.moveaxis(raw.reshape(4, 4, 4, 4, 4, 8), (4, 5), (0, 1)).reshape(4, 8, 256)


def test_a_whole_trajectory_of_tmlqcd():
  """Links, momenta and dH after five leapfrog steps with even/odd pseudofermions, and the initial forces.

  There U' = exp(i eps p lambda) U, so its tau = 0.25 is ours of 0.5, and its force is twice ours. Its antiperiodic phase is
  spread over the time links: phi here is phi there times e^{i pi t/T}.
  """
  u0, u1 = _tmlqcd_links("dump_U0.bin"), _tmlqcd_links("dump_U1.bin")
  p0, p1 = _tmlqcd_algebra("dump_P0.bin"), _tmlqcd_algebra("dump_P1.bin")
  raw = np.fromfile(DATA / "tmlqcd" / "trajectory_eo" / "dump_pf_1.bin", "<c16")
  time = np.indices((4, 4, 4, 4))[0].ravel()
  full = raw.reshape(256, 4, 3).transpose(1, 2, 0) * np.exp(1j * np.pi * time / 4)
  even, phi = checkerboard.split(jnp.asarray(full), (4, 4, 4, 4))
  assert not even.any()

  quarks = pseudofermion.even_odd(0.1)
  coordinates = lambda force: group.to_coordinates(sites.flatten(force))
  np.testing.assert_allclose(
    2 * coordinates(gauge.wilson_force(u0, 1.0)), _tmlqcd_algebra("dump_F0_gauge_0.bin"), atol=1e-13
  )
  np.testing.assert_allclose(2 * coordinates(quarks.force(u0, phi)), _tmlqcd_algebra("dump_F0_det_1.bin"), atol=1e-12)
  assert float(quarks.value(u0, phi)) == pytest.approx(1545.88286924215, abs=1e-8)
  # There the plaquettes enter the printed energy with the opposite sign.
  assert float(gauge.wilson(u0, 1.0)) == pytest.approx(-8.8953844824018049e01, abs=1e-11)

  action = gauge.total(gauge.action(1.0), quarks)
  momentum = group.from_coordinates(jnp.asarray(p0), 3)
  assert float(hmc.kinetic(momentum)) == pytest.approx(4.1303833564532924e03, abs=1e-9)
  end = jax.jit(lambda u, m, f: hmc.evolve(action, u, m, ((), f), 0.5, 5))(u0, momentum, phi)
  np.testing.assert_allclose(end.u, u1, atol=1e-13)
  np.testing.assert_allclose(group.to_coordinates(end.momentum), p1, atol=1e-11)
  assert float(end.delta_h) == pytest.approx(2.4301709201233734e-01, abs=1e-10)


@pytest.mark.parametrize("lattice", [(3, 5), (2, 2), (2, 1), (1, 2, 3)])
def test_plaquette_and_action_by_a_loop_over_sites(lattice):
  """Odd extents, and extents of two and one, on which links are their own neighbours."""
  u = np.asarray(links(2, lattice))
  at = lambda mu, x: u[(mu, slice(None), slice(None), *(i % n for i, n in zip(x, lattice)))]
  ahead = lambda x, mu: tuple(i + (d == mu) for d, i in enumerate(x))
  total, count = 0.0, 0
  for x in np.ndindex(*lattice):
    for mu in range(len(lattice)):
      for nu in range(mu + 1, len(lattice)):
        back = at(mu, ahead(x, nu)).conj().T @ at(nu, x).conj().T
        total += np.trace(at(mu, x) @ at(nu, ahead(x, mu)) @ back).real
        count += 1
  found = jax.jit(lambda u: (gauge.wilson(u, 3.0), observables.mean_plaquette(u), observables.plaquette(u)))(u)
  np.testing.assert_allclose(found, [-1.5 * total, total / 2 / count, total / 2 / np.prod(lattice)], rtol=1e-12)


@pytest.mark.parametrize("lattice", [(3, 5), (2, 4), (2, 1), (1, 2, 3)])
def test_rectangles_by_a_loop_over_sites(lattice):
  u, nd = np.asarray(links(2, lattice)), len(lattice)
  total = 0.0
  for x in np.ndindex(*lattice):
    for mu, nu in itertools.permutations(range(nd), 2):
      here, loop = np.array(x), np.eye(2)
      for direction, sign in ((mu, 1), (mu, 1), (nu, 1), (mu, -1), (mu, -1), (nu, -1)):
        step = sign * np.eye(nd, dtype=int)[direction]
        link = u[(direction, slice(None), slice(None), *((here if sign > 0 else here + step) % lattice))]
        loop, here = loop @ (link if sign > 0 else link.conj().T), here + step
      total += np.trace(loop).real
  plaquettes = gauge.wilson(u, 3.0)
  np.testing.assert_allclose(gauge.improved(u, 3.0, -0.2), 2.6 * plaquettes + 0.2 * 1.5 * total, rtol=1e-12)
