import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import check_flow, log_jacobian
from fields import links

from flowqcd.flows import conv, coupling, masks
from flowqcd.lattice import group, sites

SMALL = coupling.Config(layers=8, bins=4, net=conv.Config(hidden=(4, 4)))


def _flow(nc, lattice, scale=0.5, **changes):
  """A flow with parameters far from the identity."""
  config = dataclasses.replace(SMALL, **changes)
  flow = coupling.make(config, nc, lattice)
  params = flow.init(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [
    x.astype(float) + scale * jax.random.normal(k, x.shape) / max(1, x[0, ..., 0].size) ** 0.5
    for x, k in zip(leaves, keys)
  ]
  return flow, jax.tree.unflatten(tree, moved)


# Translations along all axes by the width are the symmetries of every mask.
@pytest.mark.parametrize("nc, lattice, offset", [
  (1, (4, 4), (0, 0)), (2, (4, 4), (0, 0)), (3, (4, 4), (0, 0)), (2, (8, 4), (4, 0)), (3, (4, 8), (0, 4)),
])  # fmt: skip
def test_contract_in_two_dimensions(nc, lattice, offset):
  flow, params = _flow(nc, lattice)
  check_flow(flow, params, links(nc, lattice), round_trip=1e-8, jacobian=1e-7, equivariance=1e-8, offset=offset)


@pytest.mark.parametrize("nc, lattice, layers", [(2, (2, 2, 2), 12), (2, (2, 2, 2, 2), 24), (1, (2, 2, 2, 2), 24)])
def test_dense_jacobian_in_three_and_four_dimensions(nc, lattice, layers):
  """Every orientation of the masks, on the smallest lattice there is: width two."""
  flow, params = _flow(nc, lattice, width=2, layers=layers)
  check_flow(
    flow, params, links(nc, lattice), round_trip=1e-8, jacobian=1e-7, equivariance=1e-8, offset=(0,) * len(lattice)
  )


@pytest.mark.slow
def test_dense_jacobian_of_su3_in_four_dimensions():
  flow, params = _flow(3, (2, 2, 2, 2), width=2, layers=24)
  check_flow(flow, params, links(3, (2,) * 4), round_trip=1e-8, jacobian=1e-6, equivariance=1e-8, offset=(0,) * 4)


@pytest.mark.parametrize("nc", [2, 3])
def test_contract_on_the_papers_lattice(nc):
  flow, params = _flow(nc, (4, 4, 4, 4), layers=48, bins=16)
  check_flow(flow, params, links(nc, (4, 4, 4, 4)), round_trip=1e-7, equivariance=1e-7, offset=(0,) * 4)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_single_precision_follows_double(nc):
  """Point, log-determinant, dense Jacobian and round trip in complex64."""
  flow, params = _flow(nc, (4, 4), scale=0.3)
  low = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  z = links(nc, (4, 4))
  z32 = z.astype(jnp.complex64)
  double, single = flow.forward(params, z), flow.forward(low, z32)
  assert single.point.dtype == jnp.complex64 and single.logdet.dtype == jnp.float32
  np.testing.assert_allclose(single.point, double.point, atol=1e-4)
  assert abs(float(single.logdet) - float(double.logdet)) < 2e-3
  back = flow.inverse(low, single.point)
  np.testing.assert_allclose(back.point, z32, atol=2e-3)
  assert abs(float(back.logdet + single.logdet)) < 1e-2
  dense = log_jacobian(lambda z: flow.forward(params, z).point, z)
  assert float(single.logdet) == pytest.approx(float(dense), abs=2e-3)


@pytest.mark.parametrize("nc, once, twice", [(2, (4, 4), (8, 4)), (3, (4, 4), (4, 8))])
def test_parameters_of_one_volume_serve_another(nc, once, twice):
  """A configuration repeated along an axis flows to the repeated image, with twice the log-determinant."""
  flow, params = _flow(nc, once)
  other = coupling.make(SMALL, nc, twice)
  z = links(nc, once)
  repeats = tuple(b // a for a, b in zip(once, twice))
  tile = lambda x: jnp.tile(x, (1, 1, 1, *repeats))
  small, large = flow.forward(params, z), other.forward(params, tile(z))
  np.testing.assert_allclose(large.point, tile(small.point), atol=1e-10)
  assert float(large.logdet) == pytest.approx(2 * float(small.logdet), rel=1e-10)


def test_only_active_links_move():
  for layers in (1, 2, 3):
    flow, params = _flow(3, (4, 4), layers=layers)
    z = links(3, (4, 4))
    moved = np.abs(flow.forward(params, z).point - z).max(axis=(1, 2)) > 1e-8
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


def test_gradients_are_those_of_differences_with_and_without_recomputation():
  z, found = links(3, (4, 4)), []
  for remat in (False, True):
    flow, params = _flow(3, (4, 4), remat=remat)

    def loss(params, flow=flow):
      u, logdet = flow.forward(params, z)
      return jnp.sum(group.trace(sites.flatten(u)).real) + logdet

    gradient = jax.jit(jax.grad(loss))(params)
    found.append(gradient)
    direction = jax.tree.map(lambda x: jax.random.normal(jax.random.key(2), x.shape), params)
    compiled = jax.jit(loss)
    at = lambda e, p=params, d=direction, f=compiled: f(jax.tree.map(lambda a, b: a + e * b, p, d))
    # Steps short of the nearest kink of a leaky ReLU.
    slope = (8 * (at(1e-6) - at(-1e-6)) - (at(2e-6) - at(-2e-6))) / 12e-6
    inner = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
    assert float(inner) == pytest.approx(float(slope), rel=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), *found)


def test_unit_links_stay_and_have_finite_gradients():
  for dtype in (jnp.complex64, jnp.complex128):
    flow, params = _flow(3, (4, 4))
    params = jax.tree.map(lambda x, d=dtype: x.astype(jnp.finfo(d).dtype), params)
    u = jnp.broadcast_to(jnp.eye(3, dtype=dtype)[None, :, :, None, None], (2, 3, 3, 4, 4))
    np.testing.assert_allclose(flow.forward(params, u).point, u, atol=1e-5)
    gradient = jax.grad(lambda p, f=flow, u=u: f.forward(p, u).logdet)(params)
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
  flow, params = _flow(nc, lattice, loops="staples", width=2, layers=4 * len(lattice) // 2)
  check_flow(
    flow, params, links(nc, lattice), round_trip=1e-8, jacobian=1e-7, equivariance=1e-8, offset=(0,) * len(lattice)
  )
