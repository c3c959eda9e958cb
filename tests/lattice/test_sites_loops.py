import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import gauge_function, links

from flowqcd.lattice import checkerboard, fusion, group, loops, precision, sites

SHAPES = pytest.mark.parametrize("nc, lattice", [(1, (3, 4)), (2, (2, 3, 4)), (3, (2, 3, 4, 5)), (3, (2, 2))])


def _matrix(u, mu, x):
  """U_mu(x) as a NumPy matrix, x any integers."""
  x = tuple(c % n for c, n in zip(x, u.shape[3:]))
  return np.asarray(u)[(mu, slice(None), slice(None), *x)]


def _step(x, mu, n=1):
  return tuple(c + n * (i == mu) for i, c in enumerate(x))


def _product(u, x, path):
  """Parallel transport along signed steps, +-(mu + 1), written link by link."""
  total = np.eye(u.shape[1])
  for move in path:
    mu = abs(move) - 1
    if move > 0:
      total, x = total @ _matrix(u, mu, x), _step(x, mu)
    else:
      x = _step(x, mu, -1)
      total = total @ _matrix(u, mu, x).conj().T
  return total


def _field(u, path):
  """The loop from every site, [Nc, Nc, *L]."""
  out = np.zeros(u.shape[1:], complex)
  for x in itertools.product(*(range(n) for n in u.shape[3:])):
    out[(slice(None), slice(None), *x)] = _product(u, x, path)
  return out


@SHAPES
def test_loops_link_by_link(nc, lattice):
  u = links(nc, lattice)
  for mu, nu in [(0, 1), (1, 0), (len(lattice) - 1, 0)]:
    m, n = mu + 1, nu + 1
    np.testing.assert_allclose(loops.plaquette(u, mu, nu), _field(u, [m, n, -m, -n]), atol=1e-14)
    np.testing.assert_allclose(loops.rectangle(u, mu, nu), _field(u, [m, m, n, -m, -m, -n]), atol=1e-14)
    leaves = sum(_field(u, path) for path in ([m, n, -m, -n], [n, -m, -n, m], [-m, -n, m, n], [-n, m, n, -m]))
    np.testing.assert_allclose(loops.clover_leaf(u, mu, nu), leaves, atol=1e-14)
  for mu in range(len(lattice)):
    staple = sum(
      _field(u, [mu + 1, s * (nu + 1), -mu - 1, -s * (nu + 1)])
      for nu in range(len(lattice))
      if nu != mu
      for s in (1, -1)
    )
    loop = jnp.einsum("ij...,jk...->ik...", u[mu], loops.staple(u, mu))
    np.testing.assert_allclose(loop, staple, atol=1e-13)
    through = loops.link_plaquettes(sites.flatten(u), lattice)[mu]
    np.testing.assert_allclose(sites.unflatten(through, lattice), staple, atol=1e-13)
    line = loops.polyakov_line(u, mu)
    start = _field(u, [mu + 1] * lattice[mu])
    np.testing.assert_allclose(line, np.take(start, 0, axis=2 + mu), atol=1e-14)


@SHAPES
def test_traces_are_gauge_invariant_and_translate(nc, lattice):
  u, g = links(nc, lattice), gauge_function(nc, lattice)
  traces = loops.plaquette_traces(u)
  pairs = loops.planes(len(lattice))
  for i, (mu, nu) in enumerate(pairs):
    np.testing.assert_allclose(traces[i], jnp.einsum("ii...->...", loops.plaquette(u, mu, nu)), atol=1e-14)
  np.testing.assert_allclose(loops.plaquette_traces(sites.gauge_transform(u, g)), traces, atol=1e-13)
  offset = tuple(range(1, len(lattice) + 1))
  moved = loops.plaquette_traces(sites.translate(u, offset))
  np.testing.assert_allclose(moved, sites.translate(traces, offset), atol=1e-14)


def test_shift_is_the_neighbour_and_periodic():
  lattice = (2, 3, 5)
  x = jnp.arange(30)
  here = np.arange(30).reshape(lattice)
  for mu, n in ((0, 1), (1, -1), (2, 2)):
    shifted = np.asarray(sites.shift(x, lattice, mu, n)).reshape(lattice)
    for site in itertools.product(*(range(k) for k in lattice)):
      ahead = tuple(c % k for c, k in zip(_step(site, mu, n), lattice))
      assert shifted[site] == here[ahead]


@pytest.mark.parametrize("lattice", [(4, 6), (2, 2, 4), (2, 4, 2, 6)])
def test_checkerboard_splits_merges_and_shifts(lattice):
  volume = int(np.prod(lattice))
  x = jnp.arange(2 * volume).reshape(2, volume)
  even, odd = checkerboard.split(x, lattice)
  colours = sites.parity(lattice).reshape(-1)
  assert set(np.asarray(even[0]).tolist()) == set(np.flatnonzero(colours == 0).tolist())
  np.testing.assert_array_equal(checkerboard.merge(even, odd, lattice), x)
  for mu in range(len(lattice)):
    for n in (1, -1):
      expected = checkerboard.split(sites.shift(x, lattice, mu, n), lattice)
      for parity, other in ((0, odd), (1, even)):
        found = checkerboard.shift(other, lattice, mu, n, parity)
        np.testing.assert_array_equal(found, expected[parity])


def test_odd_extents_have_no_checkerboard():
  with pytest.raises(checkerboard.ParityError, match=r"\(4, 3\)"):
    checkerboard.split(jnp.zeros(12), (4, 3))


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (4, 3, 2, 4, 4, 4, 4), (3, 3), (2, 3, 3, 4, 4, 4)])
def test_wrong_shapes_are_named(shape):
  with pytest.raises(sites.ShapeError, match=r"\[Nd, Nc, Nc, \*L\]"):
    loops.plaquette_traces(jnp.zeros(shape, complex))


def test_conversion_for_sites_first_arrays():
  u = links(3, (2, 3, 4, 5))
  other = sites.to_sites_first(u)
  assert other.shape == (2, 3, 4, 5, 4, 3, 3)
  np.testing.assert_array_equal(sites.from_sites_first(other), u)


def test_materialise_is_the_identity_forward_and_backward():
  tree = {"a": jnp.array([jnp.inf, jnp.nan, 1.0]), "b": jnp.arange(3.0) + 1j}
  same = jax.jit(fusion.materialise)(tree)
  for name in tree:
    np.testing.assert_array_equal(same[name], tree[name])
  f = lambda x: jnp.sum(fusion.materialise(x * x) * jnp.arange(4))
  np.testing.assert_allclose(jax.grad(f)(jnp.ones(4)), 2 * np.arange(4))
  np.testing.assert_allclose(jax.vmap(jax.grad(f))(jnp.ones((2, 4)))[1], 2 * np.arange(4))


def test_precision_of_the_input_is_kept():
  double = precision.of_input(lambda u: u * (1 / 3))
  with jax.enable_x64(False):
    assert double(np.ones(3)).dtype == np.float64
    assert double(np.ones(3, np.float32)).dtype == np.float32
    assert double(jnp.ones(3)).dtype == np.float32


@pytest.mark.parametrize("shape", [(0,), (), (1,), (7,), (131, 5, 11), (3, 257), (2**18,)])
def test_pairwise_sum(shape):
  x = np.random.default_rng(0).normal(1, 1, shape).astype(np.float32)
  found, exact = jax.jit(precision.pairwise_sum)(x), np.sum(x, dtype=float)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, exact, rtol=2e-7)


def test_group_determinant_and_violation():
  u = links(3, (2, 2)).reshape(2, 3, 3, 4)
  np.testing.assert_allclose(group.det(u), 1, atol=1e-14)
  assert group.violation(u.at[0, 0, 0, 0].add(1e-3)) > 1e-4
