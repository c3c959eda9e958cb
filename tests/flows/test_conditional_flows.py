"""Conditional flows: covariance, round trip, log-determinant; the hopping expansion reproduced order by order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import transform_spinor
from fields import gauge_function, gauge_transform, initial, links, spinor

from flowqcd.flows import hopping, ptcn
from flowqcd.lattice import checkerboard, colouring, sites
from flowqcd.theory import determinant, dirac

THEORIES = [(1, (4, 4)), (2, (4, 6)), (3, (4, 4)), (1, (2, 2, 2, 4)), (3, (2, 2, 2, 2))]
SMALL = ptcn.Config(layers=14, hops=2, copies=2, trunk=3, gain=0.5, bias=0.1)
KAPPA = 0.12


def check_conditional(flow, u, z):
  """Round trip, covariance, and the log-determinant against the dense real Jacobian, with parameters off their start."""
  lattice, parities = sites.extents(u), u[0, 0, 0].size // z.shape[-1]
  params = initial(flow, 0.1)
  g = gauge_function(u.shape[1], lattice)
  split = jax.jit(checkerboard.split, static_argnums=1)
  h = g if parities == 1 else split(g.reshape(*g.shape[:2], -1), lattice)[1]

  @jax.jit
  def forward(u, fields):
    at = flow.at(params, u)
    return jax.vmap(at.forward)(fields), at.logdet

  real = lambda x: np.concatenate([x.real.ravel(), x.imag.ravel()])
  units = np.eye(2 * z.size)
  # Of a linear map: its values at the unit vectors. One program serves them and both gauges.
  fields = np.concatenate([(units[:, : z.size] + 1j * units[:, z.size :]).reshape(-1, *z.shape), z[None]])
  images, logdet = jax.device_get(forward(u, fields))
  phi, jacobian = images[-1], np.stack([real(x) for x in images[:-1]], axis=1)
  turned, other_logdet = forward(gauge_transform(u, g), transform_spinor(fields, h))
  back = jax.jit(lambda u, phi: flow.at(params, u).inverse(phi))(u, phi)
  np.testing.assert_allclose(jacobian @ real(z), real(phi), atol=1e-11)
  assert np.abs(phi - z).max() > 1e-2
  np.testing.assert_allclose(back, z, atol=1e-11)
  np.testing.assert_allclose(turned, transform_spinor(images, h), atol=1e-11)
  np.testing.assert_allclose([logdet, other_logdet], np.linalg.slogdet(jacobian)[1], rtol=1e-9, atol=1e-9)


def _ptcn(nc, lattice, parities):
  u = links(nc, lattice)
  check_conditional((ptcn.full, ptcn.odd)[parities - 1](SMALL, nc, lattice), u, spinor(u, parities))


@pytest.mark.parametrize("nc, lattice, parities", [
  (1, (4, 4), 1), (2, (4, 6), 2), (3, (4, 4), 2), (1, (2, 2, 2, 4), 2), (3, (2, 2, 2, 2), 1),
])  # fmt: skip
def test_ptcn(nc, lattice, parities):
  _ptcn(nc, lattice, parities)


@pytest.mark.slow
@pytest.mark.parametrize("nc, lattice", THEORIES)
@pytest.mark.parametrize("parities", [1, 2])
def test_ptcn_of_every_theory(nc, lattice, parities):
  _ptcn(nc, lattice, parities)


def _hopping(nc, lattice, order, twist):
  u = links(nc, lattice)
  flow = hopping.odd(hopping.Config(order), KAPPA, lattice, None, twist)
  check_conditional(flow, u, spinor(u, 2))
  check_conditional(hopping.full(flow, KAPPA), u, spinor(u, 1))


@pytest.mark.parametrize("order, twist, nc, lattice", [
  (1, 0.0, 2, (4, 6)), (1, 0.4, 3, (4, 4)), (1, 0.4, 2, (4, 2, 2, 4)), (2, 0.0, 1, (4, 4)),
])  # fmt: skip
def test_hopping(order, twist, nc, lattice):
  _hopping(nc, lattice, order, twist)


@pytest.mark.slow
@pytest.mark.parametrize("nc, lattice", [(1, (4, 4)), (2, (4, 6)), (3, (4, 4)), (2, (4, 2, 2, 4))])
@pytest.mark.parametrize("order, twist", [(1, 0.0), (1, 0.4), (2, 0.0)])
def test_hopping_of_every_theory(nc, lattice, order, twist):
  _hopping(nc, lattice, order, twist)


def test_the_four_dimensional_flow_of_su3():
  u = links(3, (4, 4, 4, 4))
  flow = hopping.full(hopping.odd(hopping.Config(1), 0.1, (4, 4, 4, 4)), 0.1)
  at = flow.at(flow.init(jax.random.key(0)), u)
  z = spinor(u, 1)
  np.testing.assert_allclose(jax.jit(at.inverse)(jax.jit(at.forward)(z)), z, atol=1e-12)
  assert at.logdet == 0


@pytest.mark.parametrize("twist", [0.0, 0.5])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_errors_of_the_hopping_flow_fall_with_kappa_as_promised(order, twist):
  """A - W vanishes like kappa^2 at order 0 and kappa^4 at order 1; at order 2 like kappa^6 off the colours' blocks."""
  lattice = (8, 8)
  u, colours = links(2, lattice), colouring.two_hop(lattice)
  shape, gamma5 = (2, 2, 32), np.repeat([1, -1], 64)
  same = np.tile(colours, 4)[:, None] == np.tile(colours, 4)[None]

  def error(kappa):
    flow = hopping.odd(hopping.Config(order), kappa, lattice, None, twist)
    at = flow.at(flow.init(jax.random.key(0)), u)
    a = determinant.dense(at.forward, shape, u.dtype)
    wanted = determinant.dense(dirac.schur(u, kappa).apply, shape, u.dtype) + 1j * twist * np.diag(gamma5)
    difference = np.asarray(a - wanted)
    return np.linalg.norm(np.where(same, 0, difference) if order == 2 else difference)

  power = np.log(error(0.02) / error(0.01)) / np.log(2)
  assert abs(power - 2 * (order + 1)) < 0.05


def test_full_lattice_flow_of_the_exact_complement_is_the_wilson_operator():
  u, kappa = links(2, (4, 4)), 0.15
  schur = dirac.schur(u, kappa)
  exact = hopping.ConditionalFlow(
    lambda key: (), lambda params, u: hopping.LinearFlow(schur.apply, lambda x: x, jnp.zeros(()))
  )
  z = spinor(u, 1)
  np.testing.assert_allclose(
    hopping.full(exact, kappa).at((), u).forward(z), dirac.wilson(u, kappa).apply(z), atol=1e-13
  )


@pytest.mark.parametrize("lattice, count", [((4, 4), 4), ((8, 8), 4), ((4, 4, 4, 4), 8), ((8, 4, 4, 4), 8)])
def test_colours_tell_two_hops_apart(lattice, count):
  colours, stars = colouring.two_hop(lattice), colouring.odd_neighbours(lattice)
  assert colours.max() + 1 == count
  assert all(len(set(star)) == len(star) for star in colours[stars].T)


def test_paper_has_ten_spin_projectors_and_two_parities():
  projectors = ptcn._projectors(36, (4, 4, 4, 4), np.ones(256), ptcn._parities)
  ranks = np.trace(projectors.spin, axis1=1, axis2=2).real * projectors.sites.sum(axis=1)
  np.testing.assert_allclose(ranks.reshape(3, 12), [[512.0] * 12] * 3)
  np.testing.assert_allclose(projectors.spin @ projectors.spin, projectors.spin, atol=1e-15)


def test_wrong_links_and_settings_are_named():
  flow = ptcn.full(SMALL, 2, (4, 4))
  with pytest.raises(sites.ShapeError, match="Nc = 2"):
    flow.at(flow.init(jax.random.key(0)), links(1, (4, 4)))
  with pytest.raises(sites.ShapeError, match=r"the lattice \(4, 6\)"):
    hopping.odd(hopping.Config(), 0.1, (4, 6)).at((), links(1, (4, 4)))
  with pytest.raises(checkerboard.ParityError, match="even extents"):
    hopping.odd(hopping.Config(), 0.1, (3, 4))
  with pytest.raises(ValueError, match="order must be 0, 1 or 2"):
    hopping.Config(3)
  with pytest.raises(ValueError, match="must be positive"):
    ptcn.Config(hops=0)
