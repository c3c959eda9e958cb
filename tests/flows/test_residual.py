import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import check_flow
from fields import initial, links, normal
from programs import slow

from flowqcd.analysis import weights
from flowqcd.flows import conv, masks, residual
from flowqcd.lattice import algebra, exponential, group, sites
from flowqcd.models import marginal, priors
from flowqcd.theory import gauge

SMALL = residual.Config(sweeps=1, networks=True, net=conv.Config(hidden=(4,), gain=1.0))


def _flow(nc, lattice, scale=10.0, beta=None, **changes):
  """A flow with parameters far from those it starts with: coefficients differ from layer to layer and link to link."""
  flow = residual.make(dataclasses.replace(SMALL, **changes), 2.0 * nc if beta is None else beta, nc, lattice)
  leaves, tree = jax.tree.flatten(initial(flow))
  moved = [x + scale * normal(x.shape, seed=1 + i) / max(1, x[0].size) ** 0.5 for i, x in enumerate(leaves)]
  return flow, jax.tree.unflatten(tree, moved)


# Translations by the width are the symmetries of every mask.
@pytest.mark.parametrize("nc, lattice, changes", [
  slow(3, (4, 4), {}), (1, (4, 4), {}), (2, (2, 2, 2, 2), {"networks": False}),
  (3, (4, 8), {"width": 4, "order": 1, "networks": False}), (2, (4, 4), {}),
])  # fmt: skip
def test_contract(nc, lattice, changes):
  flow, params = _flow(nc, lattice, **changes)
  offset = tuple(changes.get("width", 2) if extent > changes.get("width", 2) else 0 for extent in lattice)
  z = links(nc, lattice)
  assert np.abs(np.asarray(jax.jit(flow.forward)(params, z).point) - np.asarray(z)).max() > 0.03
  check_flow(flow, params, z, round_trip=1e-11, jacobian=1e-7, equivariance=1e-10, offset=offset)


def test_four_dimensions():
  flow, params = _flow(3, (4, 4, 4, 4))
  check_flow(flow, params, links(3, (4, 4, 4, 4)), round_trip=1e-11, equivariance=1e-10, offset=(2, 0, 2, 0))


def test_networks_are_alive_from_the_start():
  """Gates of one natural unit on fresh networks move ln det by more than a thousandth of what constants of one unit do."""
  flow = residual.make(residual.Config(sweeps=1, networks=True), 2.0, 2, (4, 4, 4, 4))
  params, z = initial(flow), links(2, (4, 4, 4, 4))
  logdet = jax.jit(lambda params: flow.forward(params, z).logdet)
  change = lambda name: abs(logdet(params | {name: np.ones_like(params[name])}) - logdet(params))
  # Values of the networks differ in sign, and add up to much less.
  assert 1e-3 * change("constant") < change("gate") < change("constant")


def test_coefficients_beyond_the_bound_are_scaled_down():
  """Where the coefficients would fold the group, the map is still invertible."""
  for changes in ({"order": 1}, {}):
    flow, params = _flow(3, (4, 4), scale=3000.0, beta=60.0, **changes)
    z = links(3, (4, 4))
    u, logdet = jax.jit(flow.forward)(params, z)
    back = jax.jit(flow.inverse)(params, u)
    assert np.abs(np.asarray(back.point) - np.asarray(z)).max() < 1e-9
    assert abs(float(back.logdet + logdet)) < 1e-8


def test_an_inverse_that_did_not_converge_is_no_number(monkeypatch):
  flow, params = _flow(3, (4, 4))
  u = jax.jit(flow.forward)(params, links(3, (4, 4))).point
  monkeypatch.setattr(residual, "_ITERATIONS", 1)
  back = jax.jit(flow.inverse)(params, u)
  assert np.isnan(back.point).any() and np.isnan(back.logdet)


def test_the_bound_is_one():
  """|dZ/dU| at links that come close to it: all plaquettes minus one, where the derivative of TA is largest."""
  k, nc = 6, 3
  u = group.identity(nc, jnp.complex128)
  around = jnp.broadcast_to(u, (k, nc, nc, 1))
  for name in residual.Coefficients._fields:
    c = residual.Coefficients(*(jnp.zeros((k + 1, 1)) for _ in range(4)))
    c = residual._limit(c._replace(**{name: jnp.full((k + 1, 1), -100.0)}), nc)
    sums = residual._sums(u, around, c, 2)
    size = np.linalg.norm(residual._exponent_derivative(sums, c, 2)[..., 0], 2)
    assert 0.2 < size < 0.9 + 1e-9, (name, size)


def test_inverse_differentiates_as_the_implicit_function():
  """Derivatives of the inverse, in parameters and in links, against differences; its loop is never differentiated."""
  flow, params = _flow(3, (4, 4), net=conv.Config(hidden=(4,), gain=1.0, slope=1.0))  # No kinks for the differences.
  u = links(3, (4, 4), seed=3)
  x = group.gaussian(jax.random.key(4), sites.flatten(u).shape, u.dtype)
  probe = normal(u.shape, complex)
  direction = jax.tree.map(lambda p: normal(p.shape, seed=6), params)

  def value(e):
    moved = sites.unflatten(group.mul(exponential.exp(e * x), sites.flatten(u)), (4, 4))
    end = flow.inverse(jax.tree.map(lambda p, d: p + e * d, params, direction), moved)
    return jnp.sum((probe * end.point).real) + end.logdet

  value = jax.jit(value)
  slope = jax.jit(jax.grad(value))(0.0)
  step = 1e-4
  difference = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
  np.testing.assert_allclose(slope, difference, rtol=1e-8)


def test_starts_as_the_leading_order_of_the_trivializing_flow():
  lattice, beta = (4, 4), 2.0
  model = marginal.make(
    priors.haar(3, lattice, jnp.complex128), residual.make(residual.Config(networks=True), beta, 3, lattice)
  )
  haar = priors.haar(3, lattice, jnp.complex128)
  params, keys = initial(model), jax.random.split(jax.random.key(1), 512)

  @jax.jit
  def log_w(keys):
    found = jax.vmap(model.sample, (None, 0))(params, keys)
    action = jax.vmap(lambda u: gauge.wilson(u, beta))
    return -action(found.u) - found.log_q, -action(jax.vmap(haar.sample)(keys))

  by_flow, by_prior = log_w(keys)
  assert weights.ess(by_flow) > 0.9
  assert weights.ess(by_prior) < 0.5


def test_single_precision_follows_double():
  flow, params = _flow(3, (4, 4))
  z = links(3, (4, 4))
  low = jax.tree.map(lambda x: x.astype(np.float32), params)
  forward = jax.jit(flow.forward)
  double, single = forward(params, z), forward(low, z.astype(jnp.complex64))
  assert single.point.dtype == jnp.complex64 and single.logdet.dtype == jnp.float32
  np.testing.assert_allclose(single.point, double.point, atol=1e-5)
  assert abs(float(single.logdet) - float(double.logdet)) < 1e-4
  back = jax.jit(flow.inverse)(low, single.point)
  np.testing.assert_allclose(back.point, z, atol=1e-5)
  assert abs(float(back.logdet + single.logdet)) < 1e-4


def test_parameters_of_one_volume_serve_another():
  flow, params = _flow(2, (4, 4))
  other = residual.make(SMALL, 4.0, 2, (4, 8))
  z = links(2, (4, 4))
  tile = lambda x: np.tile(x, (1, 1, 1, 1, 2))
  small, large = jax.jit(flow.forward)(params, z), jax.jit(other.forward)(params, tile(z))
  np.testing.assert_allclose(large.point, tile(small.point), atol=1e-12)
  assert float(large.logdet) == pytest.approx(2 * float(small.logdet), rel=1e-12)


def test_bad_input():
  with pytest.raises(ValueError, match="sweeps must be at least 1"):
    residual.Config(sweeps=0)
  with pytest.raises(ValueError, match="order must be 1 or 2"):
    residual.Config(order=3)
  with pytest.raises(masks.MaskError, match="does not fit width 2"):
    residual.make(residual.Config(), 1.0, 3, (4, 5))
  flow = residual.make(residual.Config(), 1.0, 3, (4, 4))
  with pytest.raises(sites.ShapeError, match="for Nc = 3"):
    flow.forward(flow.init(jax.random.key(0)), links(2, (4, 4)))


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_algebra(nc):
  """ad against commutators, dexp against differences of the exponential, elimination against a library's solve."""
  x, y = group.gaussian(jax.random.key(0), (2, nc, nc, 5), jnp.complex128)
  x = x / jnp.sqrt(group.norm2(x))  # |ad| is below one.
  ad = algebra.adjoint_action(group.to_coordinates(x), nc)
  applied = lambda m, p: jnp.einsum("abv,bv->av", m, p)
  bracket = group.to_coordinates(group.mul(x, y) - group.mul(y, x))
  np.testing.assert_allclose(applied(ad, group.to_coordinates(y)), bracket, atol=1e-14)
  e = 1e-4
  ends = [exponential.exp(x + s * e * y) for s in (-2, -1, 1, 2)]
  slope = (8 * (ends[2] - ends[1]) - (ends[3] - ends[0])) / (12 * e)
  left = group.to_coordinates(group.mul(slope, group.adjoint(exponential.exp(x))))
  np.testing.assert_allclose(applied(algebra.dexp(ad), group.to_coordinates(y)), left, atol=1e-10)
  np.testing.assert_allclose(algebra.dexp(ad.astype(jnp.float32)), algebra.dexp(ad), atol=1e-6)
  m = np.eye(len(ad))[..., None] + 0.3 * np.asarray(jax.random.normal(jax.random.key(1), ad.shape)) / len(ad) ** 0.5
  b = np.asarray(jax.random.normal(jax.random.key(2), ad.shape[1:]))
  found = algebra.eliminate(jnp.asarray(m), jnp.asarray(b))
  rolled = m.transpose(2, 0, 1)
  np.testing.assert_allclose(found.logdet, np.linalg.slogdet(rolled)[1], atol=1e-12)
  np.testing.assert_allclose(found.solution, np.linalg.solve(rolled, b.T[..., None])[..., 0].T, atol=1e-12)
