import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from flowqcd.lattice import exponential, group

GROUPS = pytest.mark.parametrize("nc", [1, 2, 3])


@GROUPS
def test_basis_is_normalised_and_complete(nc):
  t = group.basis(nc)
  np.testing.assert_allclose(np.einsum("aij,bji->ab", t, t), -0.5 * np.eye(len(t)), atol=1e-15)
  np.testing.assert_allclose(t, -t.conj().swapaxes(1, 2))
  casimir = -np.einsum("aij,ajk->ik", t, t)
  np.testing.assert_allclose(casimir, group.casimir(nc) * np.eye(nc), atol=1e-15)


def test_su3_basis_is_gell_manns():
  # lambda_4 and lambda_8, by which other orders would be noticed.
  np.testing.assert_allclose(group.basis(3)[3][0, 2], 0.5j)
  np.testing.assert_allclose(np.diag(group.basis(3)[7]), 0.5j * np.array([1, 1, -2]) / np.sqrt(3))


@GROUPS
def test_coordinates_round_trip_and_norm(nc):
  x = group.gaussian(jax.random.key(0), (nc, nc, 5), jnp.complex128)
  p = group.to_coordinates(x)
  np.testing.assert_allclose(group.from_coordinates(p, nc), x, atol=1e-15)
  np.testing.assert_allclose(group.norm2(x), np.sum(p**2, axis=0), rtol=1e-14)


@GROUPS
def test_projection_is_orthogonal(nc):
  a = jax.random.normal(jax.random.key(1), (nc, nc, 7), jnp.complex128)
  x = group.project(a)
  np.testing.assert_allclose(group.project(x), x, atol=1e-15)
  expected = -2 * np.einsum("aij,jiv->av", group.basis(nc), np.asarray(a)).real
  np.testing.assert_allclose(group.to_coordinates(x), expected, atol=1e-14)


@GROUPS
def test_product_and_its_gradient(nc):
  a, b = jax.random.normal(jax.random.key(2), (2, 4, nc, nc, 6), jnp.complex128)
  np.testing.assert_allclose(group.mul(a, b), np.einsum("xikv,xkjv->xijv", a, b), atol=1e-14)
  f = lambda mul: lambda a, b: jnp.sum(jnp.abs(mul(a, b) + b) ** 2 * jnp.arange(6))
  einsum = lambda a, b: jnp.einsum("...ikv,...kjv->...ijv", a, b)
  for ours, plain in zip(jax.grad(f(group.mul), (0, 1))(a, b), jax.grad(f(einsum), (0, 1))(a, b)):
    np.testing.assert_allclose(ours, plain, rtol=1e-12)


def test_rectangular_product_and_its_gradient():
  a, b = jax.random.normal(jax.random.key(2), (7, 6)), jax.random.normal(jax.random.key(3), (2, 7, 3, 6))
  a = jnp.stack([a, 2 * a, a - 1])  # [3, 7, V] [2, 7, 3, V]
  for by in (0, 1):
    ours = jax.grad(lambda a, b: jnp.sum(group.mul(a, b) ** 3), by)(a, b)
    plain = jax.grad(lambda a, b: jnp.sum(jnp.einsum("ikv,xkjv->xijv", a, b) ** 3), by)(a, b)
    np.testing.assert_allclose(ours, plain, rtol=1e-11)


@GROUPS
@pytest.mark.parametrize("size", [0.0, 1e-9, 0.3, 3.0, 60.0])
def test_exponential_is_accurate(nc, size):
  x = size * group.gaussian(jax.random.key(3), (nc, nc, 20), jnp.complex128)
  expected = np.stack([scipy.linalg.expm(np.asarray(x[..., i])) for i in range(20)], -1)
  error = 4e-15 * max(1, size * 3)
  np.testing.assert_allclose(exponential.exp(x), expected, atol=error)
  assert group.violation(exponential.exp(x)) < 3 * error
  single = exponential.exp(x.astype(jnp.complex64))
  np.testing.assert_allclose(single, expected, atol=2e-6 * max(1, size * 3))


@pytest.mark.parametrize("phases", [(0, 0, 0), (0.4, 0.4, -0.8), (1e-9, 0, -1e-9), (2, 2 + 1e-12, -4)])
def test_exponential_derivative_at_coinciding_eigenvalues(phases):
  x = jnp.diag(1j * jnp.array(phases))[..., None]
  weight = jax.random.normal(jax.random.key(4), (3, 3), jnp.complex128)
  t = group.basis(3)
  f = lambda p: jnp.sum(weight * exponential.exp(x + group.from_coordinates(p, 3))[..., 0]).real
  ours = jax.grad(f)(jnp.zeros((8, 1)))[:, 0]
  plain = [np.sum(weight * scipy.linalg.expm_frechet(np.asarray(x[..., 0]), ta, compute_expm=False)).real for ta in t]
  np.testing.assert_allclose(ours, plain, atol=1e-13)


def test_exponential_without_a_loop(monkeypatch):
  # What accelerators run.
  x = jnp.asarray([0.0, 0.3, 60.0, 2e3]) * group.gaussian(jax.random.key(3), (3, 3, 4), jnp.complex128)
  tangent = group.gaussian(jax.random.key(5), (3, 3, 4), jnp.complex128)
  expected = [jax.jvp(exponential.exp, (x,), (tangent,)), exponential.exp(1e4 * x)]
  monkeypatch.setattr(exponential, "_square_as_needed", exponential._square_as_feared)
  exponential._with_partials.cache_clear()
  jax.clear_caches()
  found = [jax.jvp(exponential.exp, (x,), (tangent,)), exponential.exp(1e4 * x)]
  for ours, theirs in zip(found[0], expected[0]):
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
  # Beyond its range it says so.
  assert np.isnan(found[1][..., 2:]).all() and not np.isnan(expected[1]).any()
  np.testing.assert_allclose(found[1][..., 0], expected[1][..., 0], atol=1e-12)
  jax.clear_caches()
  exponential._with_partials.cache_clear()


def test_exponential_does_not_wait_for_the_host():
  x = jnp.zeros((3, 3, 4), jnp.complex64)
  exported = jax.export.export(jax.jit(exponential.exp), platforms=("cuda",))(x)
  assert "while" not in exported.mlir_module()


def test_exponential_refuses_other_groups():
  with pytest.raises(ValueError, match="Nc = 4"):
    exponential.exp(jnp.zeros((4, 4, 1), complex))


@GROUPS
def test_haar_moments(nc):
  # E tr U = 0, E |tr U|^2 = 1; |tr U|^4: 1, 2, 2; E tr U^3: SU(3) has det in it, E (tr U)^3 = 1.
  u = group.haar(jax.random.key(5), (nc, nc, 200_000), jnp.complex128)
  assert group.violation(u) < 1e-14
  tr = np.asarray(group.trace(u))
  for values, exact in (
    (tr.real, 0),
    (abs(tr) ** 2, 1),
    (abs(tr) ** 4, {1: 1, 2: 2, 3: 2}[nc]),
    ((tr**3).real, {1: 0, 2: 0, 3: 1}[nc]),
    ((tr**2).real, {1: 0, 2: 1, 3: 0}[nc]),
  ):
    error = values.std() / np.sqrt(len(values)) + 1e-12
    assert abs(values.mean() - exact) < 4 * error


@GROUPS
def test_reunitarise_leaves_group_elements_and_mends_others(nc):
  u = group.haar(jax.random.key(6), (nc, nc, 50), jnp.complex128)
  np.testing.assert_allclose(group.reunitarise(u), u, atol=1e-14)
  noise = 1e-4 * jax.random.normal(jax.random.key(7), u.shape, u.dtype)
  assert group.violation(group.reunitarise(u + noise)) < 1e-14


@GROUPS
def test_lie_derivative_against_differences(nc):
  lattice = (2, 3)
  u = group.haar(jax.random.key(8), (2, nc, nc, 6), jnp.complex128).reshape(2, nc, nc, *lattice)
  weight = jax.random.normal(jax.random.key(9), u.shape, u.dtype)
  f = lambda u: jnp.sum((weight * u).real ** 3)
  x = group.gaussian(jax.random.key(10), (2, nc, nc, 6), u.dtype)
  move = lambda e: f(group.mul(exponential.exp(e * x), u.reshape(2, nc, nc, 6)).reshape(u.shape))
  slope = (move(1e-5) - move(-1e-5)) / 2e-5
  force = group.lie_derivative(f)(u).reshape(2, nc, nc, 6)
  found = jnp.sum(group.to_coordinates(x) * group.to_coordinates(force))
  np.testing.assert_allclose(found, slope, rtol=1e-8)


@pytest.mark.parametrize("nc", [1, 2, 3])
@pytest.mark.parametrize("dtype, tol", [(jnp.complex128, 1e-13), (jnp.complex64, 5e-6)])
def test_polar_is_the_unitary_factor(nc, dtype, tol):
  """Against singular values; with small ones, equal ones, and for sums of group elements."""
  x = jax.random.normal(jax.random.key(1), (nc, nc, 40), jnp.complex128)
  x = x.at[:, :1, :10].multiply(1e-4)
  x = x.at[..., 30:].set(5 * group.haar(jax.random.key(2), (nc, nc, 10), jnp.complex128))
  x = x.astype(dtype)
  u, _, v = np.linalg.svd(np.moveaxis(np.asarray(x), -1, 0))
  w = np.moveaxis(u @ v, 0, -1)
  if nc > 1:
    w = w * np.exp(-1j / nc * np.angle(np.linalg.det(np.moveaxis(w, -1, 0))))
  found = jax.jit(group.polar)(x)
  assert found.dtype == dtype
  assert group.violation(found) < tol
  # How well x determines it goes with the inverse of the smallest singular values.
  np.testing.assert_allclose(found, w, atol=tol * (1 if nc == 1 else 1e4))
  np.testing.assert_allclose(found[..., 30:], x[..., 30:] / 5, atol=tol)


def test_polar_differentiates_at_equal_singular_values():
  x = group.haar(jax.random.key(0), (3, 3, 1), jnp.complex128)
  y, probe = jax.random.normal(jax.random.key(1), (2, 3, 3, 1), jnp.complex128)
  value = lambda e: jnp.sum((probe * group.polar(x + e * y)).real)
  step = 1e-4
  difference = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
  np.testing.assert_allclose(jax.grad(value)(0.0), difference, rtol=1e-9)


@pytest.mark.parametrize("nc", [1, 2, 3])
def test_cofactors(nc):
  x = jax.random.normal(jax.random.key(1), (nc, nc, 5), jnp.complex128)
  product = group.mul(x, jnp.swapaxes(group.cofactors(x), 0, 1))
  np.testing.assert_allclose(product, group.det(x) * group.identity(nc, x.dtype), atol=1e-13)
