import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import check_flow
from fields import initial, links, normal, unit_links

from flowqcd.flows import conv, coupling, masks
from flowqcd.lattice import group, sites

SMALL = coupling.Config(layers=8, bins=4, net=conv.Config(hidden=(4, 4)))


def _flow(nc, lattice, scale=0.5, **changes):
  """A flow with parameters far from the identity."""
  config = dataclasses.replace(SMALL, **changes)
  flow = coupling.make(config, nc, lattice)
  start = jax.tree.leaves(initial(flow))
  noise = [scale * normal(x.shape, seed=1 + i) / max(1, x[0, ..., 0].size) ** 0.5 for i, x in enumerate(start)]
  tree = jax.tree.structure(jax.eval_shape(flow.init, jax.random.key(0)))
  return flow, jax.tree.unflatten(tree, [x.astype(float) + e for x, e in zip(start, noise)])


def _contract(nc, lattice, offset=None, jacobian=2e-6, **changes):
  flow, params = _flow(nc, lattice, **changes)
  # Translations along all axes by the width are the symmetries of every mask. Differences are right to 1e-6, for their
  # rounding and the kinks of splines.
  offset = (0,) * len(lattice) if offset is None else offset
  check_flow(flow, params, links(nc, lattice), round_trip=1e-8, jacobian=jacobian, equivariance=1e-8, offset=offset)


@pytest.mark.parametrize("nc, lattice, offset", [(1, (4, 4), (0, 0)), (2, (8, 4), (4, 0)), (3, (4, 8), (0, 4))])
def test_contract_in_two_dimensions(nc, lattice, offset):
  _contract(nc, lattice, offset)


@pytest.mark.parametrize("nc, lattice, layers", [(2, (2, 2, 2), 12), (1, (2, 2, 2, 2), 24)])
def test_dense_jacobian_in_three_and_four_dimensions(nc, lattice, layers):
  """Every orientation of the masks, on the smallest lattice there is: width two."""
  _contract(nc, lattice, width=2, layers=layers)


@pytest.mark.slow
@pytest.mark.parametrize("nc", [2, 3])
def test_dense_jacobian_in_four_dimensions(nc):
  _contract(nc, (2, 2, 2, 2), width=2, layers=24)


def test_contract_on_the_papers_lattice():
  flow, params = _flow(3, (4, 4, 4, 4), layers=48, bins=16)
  check_flow(flow, params, links(3, (4, 4, 4, 4)), round_trip=1e-7, equivariance=1e-7, offset=(0,) * 4)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_single_precision_follows_double(nc):
  """Point, log-determinant and round trip in complex64."""
  flow, params = _flow(nc, (4, 4), scale=0.3)
  low = jax.tree.map(lambda x: x.astype(np.float32), params)
  z = np.asarray(links(nc, (4, 4)))
  forward = jax.jit(flow.forward)
  double, single = forward(params, z), forward(low, z.astype(np.complex64))
  assert single.point.dtype == jnp.complex64 and single.logdet.dtype == jnp.float32
  np.testing.assert_allclose(single.point, double.point, atol=1e-4)
  assert abs(float(single.logdet) - float(double.logdet)) < 2e-3
  back = jax.jit(flow.inverse)(low, single.point)
  np.testing.assert_allclose(back.point, z, atol=2e-3)
  assert abs(float(back.logdet) + float(single.logdet)) < 1e-2


@pytest.mark.parametrize("nc, once, twice", [(2, (4, 4), (8, 4)), (3, (4, 4), (4, 8))])
def test_parameters_of_one_volume_serve_another(nc, once, twice):
  """A configuration repeated along an axis flows to the repeated image, with twice the log-determinant."""
  flow, params = _flow(nc, once)
  other = coupling.make(SMALL, nc, twice)
  z = links(nc, once)
  repeats = tuple(b // a for a, b in zip(once, twice))
  tile = lambda x: np.tile(x, (1, 1, 1, *repeats))
  small, large = jax.jit(flow.forward)(params, z), jax.jit(other.forward)(params, tile(z))
  np.testing.assert_allclose(large.point, tile(small.point), atol=1e-10)
  assert float(large.logdet) == pytest.approx(2 * float(small.logdet), rel=1e-10)


def test_only_active_links_move():
  for layers in (1, 2, 3):
    flow, params = _flow(1, (4, 4), layers=layers)
    z = links(1, (4, 4))
    moved = np.abs(np.asarray(jax.jit(flow.forward)(params, z).point) - np.asarray(z)).max(axis=(1, 2)) > 1e-8
    expected = masks.stack(masks.layers(layers, 2), (4, 4)).active.any(axis=0)
    np.testing.assert_array_equal(moved, expected)


def test_the_papers_number_of_parameters():
  flow = coupling.make(coupling.Config(), 3, (4, 4, 4, 4))
  params = jax.eval_shape(flow.init, jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(params)) == 48 * 122_900


def test_depth_does_not_grow_the_program():
  def lines(layers):
    flow = coupling.make(dataclasses.replace(SMALL, layers=layers), 3, (4, 4))
    params = jax.eval_shape(flow.init, jax.random.key(0))
    lowered = jax.jit(flow.forward).lower(params, links(3, (4, 4)))
    return len(lowered.as_text().splitlines())

  assert lines(32) == lines(8)


@pytest.mark.parametrize("nc, remat", [(2, False), (3, True)])
def test_gradients_are_those_of_differences_with_and_without_recomputation(nc, remat):
  flow, params = _flow(nc, (4, 4), remat=remat)
  z = links(nc, (4, 4))

  def loss(params):
    u, logdet = flow.forward(params, z)
    return jnp.sum(group.trace(sites.flatten(u)).real) + logdet

  gradient = jax.device_get(jax.jit(jax.grad(loss))(params))
  direction = jax.tree.map(lambda x: normal(x.shape, seed=2), params)
  compiled = jax.jit(loss)
  at = lambda e: compiled(jax.tree.map(lambda a, b: a + e * b, params, direction))
  # Steps short of the nearest kink of a leaky ReLU.
  slope = (8 * (at(1e-6) - at(-1e-6)) - (at(2e-6) - at(-2e-6))) / 12e-6
  inner = sum(np.sum(a * b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
  assert float(inner) == pytest.approx(float(slope), rel=1e-5)


def test_unit_links_stay_and_have_finite_gradients():
  flow, params = _flow(3, (4, 4))
  params = jax.tree.map(lambda x: x.astype(np.float32), params)
  u = unit_links(3, (4, 4)).astype(np.complex64)
  gradient, point = jax.jit(jax.grad(lambda p: flow.forward(p, u)[::-1], has_aux=True))(params)
  np.testing.assert_allclose(point, u, atol=1e-5)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_what_does_not_fit_is_named():
  with pytest.raises(masks.MaskError, match="extent 6 of direction 1"):
    coupling.make(SMALL, 3, (4, 6))
  flow, params = _flow(3, (4, 4))
  with pytest.raises(sites.ShapeError, match=r"Nc = 3 on the lattice \(4, 4\)"):
    flow.forward(params, links(2, (4, 4)))
  for bad in ({"layers": 0}, {"bins": 1}):
    with pytest.raises(ValueError, match="layers must be at least 1 and bins at least 2"):
      dataclasses.replace(SMALL, **bad)


@pytest.mark.parametrize("nc, lattice", [(1, (4, 4)), (3, (4, 4)), (2, (2, 2, 2))])
def test_contract_with_all_staples(nc, lattice):
  _contract(nc, lattice, loops="staples", width=2, layers=4 * len(lattice) // 2)
