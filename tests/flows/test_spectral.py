import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.flows import spectral, spline
from flowqcd.lattice import exponential, group

GROUPS = pytest.mark.parametrize("nc", [1, 2, 3])
DTYPES = pytest.mark.parametrize("dtype, eps", [(jnp.complex128, 1e-15), (jnp.complex64, 5e-7)])


def _haar(nc, count=4000, dtype=jnp.complex128):
  return group.haar(jax.random.key(nc), (nc, nc, count), jnp.complex128).astype(dtype)


def _parameters(nc, count, scale=0.7):
  return scale * jax.random.normal(jax.random.key(1), (spectral.num_coordinates(nc), 49, count))


@jax.jit
def _kernel(p, parameters):
  """(W, log J) of splines on all coordinates."""
  nc, theta = p.shape[0], spectral.eigenphases(p)
  t, moved, logdet, ends = spectral.to_box(theta), [], 0.0, []
  for t_k, raw in zip(t, parameters.astype(theta.dtype)):
    s = spline.make(raw, circular=nc == 1)
    value = (spline.circular_forward if nc == 1 else spline.forward)(s, t_k)
    moved.append(value.y)
    logdet += value.logderiv
    ends.append(spline.end_ratios(s, t_k, value.y))
  end = spectral.End(*(jnp.stack(column) for column in zip(*ends)))
  logdet += spectral.log_volume_ratio(t, jnp.stack(moved), end, nc)
  return spectral.transport(p, theta, spectral.from_box(jnp.stack(moved), nc)), logdet


def _displaced(x, p):
  return group.mul(exponential.exp(group.from_coordinates(x[:, None], len(p)).astype(p.dtype)), p)


@jax.jit
def _dense_log_jacobian(p, parameters):
  """Brute force, in group coordinates on both sides. p: one matrix [Nc, Nc, 1]."""
  image = group.mul(_kernel(p, parameters)[0], p)

  def coordinates(x):
    q = _displaced(x, p)
    end = group.mul(_kernel(q, parameters)[0], q)
    return group.to_coordinates(group.mul(end, group.adjoint(image)))[:, 0]

  return jnp.linalg.slogdet(jax.jacrev(coordinates)(jnp.zeros(len(group.basis(len(p))))))[1]


@GROUPS
@DTYPES
def test_phases_are_those_of_the_eigenvalues(nc, dtype, eps):
  p = _haar(nc)
  theta = np.asarray(spectral.eigenphases(p.astype(dtype)))
  exact = np.angle(np.linalg.eigvals(np.moveaxis(np.asarray(p), -1, 0)))
  close = np.abs(np.exp(1j * theta.T[:, :, None]) - np.exp(1j * exact[:, None, :])).min(axis=2)
  assert close.max() < 5 * eps
  if nc > 1:
    assert np.abs(theta.sum(axis=0)).max() < 5 * eps
    assert (np.diff(theta, axis=0) >= 0).all() and (theta[-1] - theta[0]).max() <= 2 * np.pi
  back = jnp.einsum("kv,kijv->ijv", jnp.exp(1j * theta), spectral.projectors(p, theta))
  assert np.abs(back - p).max() < 50 * eps


@GROUPS
@DTYPES
def test_box_and_back(nc, dtype, eps):
  theta = spectral.eigenphases(_haar(nc, dtype=dtype))
  t = spectral.to_box(theta)
  assert ((t >= 0) & (t <= 1)).all()
  difference = (spectral.from_box(t, nc) - theta) / (2 * np.pi)
  assert np.abs(difference - np.round(difference)).max() < 5 * eps


def test_haar_moments_and_conjugation_in_su3():
  p = _haar(3, 200_000)
  w, r = np.asarray(spectral.to_box(spectral.eigenphases(p)))
  for sample, exact in ((w, 2 / 3), (r, 0.5), (w**2, 0.46200), ((r - 0.5) ** 2, 0.029509)):
    assert abs(sample.mean() - exact) < 4 * sample.std() / np.sqrt(sample.size)
  w2, r2 = spectral.to_box(spectral.eigenphases(p.conj()))
  np.testing.assert_allclose(w2, w, atol=1e-13)
  np.testing.assert_allclose(r2, 1 - r, atol=1e-11)


@GROUPS
def test_transport_moves_the_phases_and_commutes_with_conjugation(nc):
  p, parameters = _haar(nc, 500), _parameters(nc, 500)
  w, logdet = _kernel(p, parameters)
  assert group.violation(w) < 1e-13
  g = group.haar(jax.random.key(7), p.shape, jnp.complex128)
  conjugate = lambda x: group.mul(group.mul(g, x), group.adjoint(g))
  other, other_logdet = _kernel(conjugate(p), parameters)
  np.testing.assert_allclose(other, conjugate(w), atol=1e-11)
  np.testing.assert_allclose(other_logdet, logdet, atol=1e-9)
  moved = spectral.to_box(spectral.eigenphases(group.mul(w, p)))
  expected = [
    (spline.circular_forward if nc == 1 else spline.forward)(spline.make(raw, circular=nc == 1), t).y
    for raw, t in zip(parameters, spectral.to_box(spectral.eigenphases(p)))
  ]
  np.testing.assert_allclose(moved, expected, atol=1e-11)


@GROUPS
def test_log_jacobian_is_that_of_brute_force(nc):
  p, parameters = _haar(nc, 24), _parameters(nc, 24, scale=1.5)
  logdet = _kernel(p, parameters)[1]
  for i in range(24):
    dense = _dense_log_jacobian(p[..., i : i + 1], parameters[..., i : i + 1])
    assert float(dense) == pytest.approx(float(logdet[i]), abs=1e-10)


WALLS = {
  "lower wall": lambda e: (0.3, 0.3 + e, -0.6 - e),
  "upper wall": lambda e: (-1.0 - e, 0.5, 0.5 + e),
  "outer wall": lambda e: (np.pi - e / 2, -np.pi + e / 2, 0.0),
  "identity": lambda e: (0.4 * e, 0.6 * e, -e),
  "centre": lambda e: (2 * np.pi / 3 + 0.4 * e, 2 * np.pi / 3 + 0.6 * e, 2 * np.pi / 3 - e),
}


def _matrix(phases, dtype=jnp.complex128):
  frame = group.haar(jax.random.key(3), (3, 3, 1), jnp.complex128)
  diagonal = jnp.diag(jnp.exp(1j * jnp.array(phases)))[..., None]
  return group.mul(group.mul(frame, diagonal), group.adjoint(frame)).astype(dtype)


@pytest.mark.parametrize("place", WALLS)
@pytest.mark.parametrize("gap, tol", [(1e-1, 1e-11), (1e-3, 1e-10), (1e-5, 1e-8), (1e-7, 1e-6)])
def test_log_jacobian_near_coinciding_eigenvalues(place, gap, tol):
  p, parameters = _matrix(WALLS[place](gap)), _parameters(3, 1)
  dense = float(_dense_log_jacobian(p, parameters))
  assert float(_kernel(p, parameters)[1][0]) == pytest.approx(dense, abs=tol)


@jax.jit
def _gradients(p, parameters):
  """Of a linear function of P', and of log J, along the group and in the splines' parameters."""
  mixed = jax.random.normal(jax.random.key(5), (3, 3, 1), jnp.complex128).astype(p.dtype)

  def both(x, parameters):
    q = _displaced(x, p)
    w, logdet = _kernel(q, parameters)
    return jnp.stack([jnp.sum((mixed * group.mul(w, q)).real), logdet[0]])

  return jax.jacrev(both, (0, 1))(jnp.zeros(8, p.real.dtype), parameters)


@pytest.mark.parametrize("place", WALLS)
@pytest.mark.parametrize("gap", [1e-1, 1e-2, 1e-3])
def test_single_precision_follows_double_near_coinciding_eigenvalues(place, gap):
  parameters = _parameters(3, 1)
  double, single = _matrix(WALLS[place](gap)), _matrix(WALLS[place](gap), jnp.complex64)
  (w, logdet), (w32, logdet32) = _kernel(double, parameters), _kernel(single, parameters.astype(jnp.float32))
  np.testing.assert_allclose(w32, w, atol=5e-6)
  np.testing.assert_allclose(logdet32, logdet, atol=1e-3)
  for a, b in zip(_gradients(double, parameters), _gradients(single, parameters.astype(jnp.float32))):
    # A rounding of the eigenvectors is magnified by 1/gap, in the slope of log J once more.
    assert np.abs(a[0] - b[0]).max() < 2e-6 / gap
    assert np.abs(a[1] - b[1]).max() < 2e-6 / gap * (1 + np.abs(a[1]).max())


@pytest.mark.parametrize("place", WALLS)
@DTYPES
def test_finite_where_eigenvalues_coincide(place, dtype, eps):
  parameters = _parameters(3, 1).astype(jnp.finfo(dtype).dtype)
  exact = jnp.diag(jnp.exp(1j * jnp.array(WALLS[place](0.0))))[..., None].astype(dtype)
  for p in (_matrix(WALLS[place](0.0), dtype), exact):
    w, logdet = _kernel(p, parameters)
    assert group.violation(w) < 50 * eps and np.isfinite(logdet).all()
    # The image has the eigenvalues that continuity gives it.
    near = _matrix(WALLS[place](1e-7))
    expected = spectral.eigenphases(group.mul(_kernel(near, parameters.astype(jnp.float64))[0], near))
    found = spectral.eigenphases(group.mul(w, p))
    for values in (expected, found):
      assert np.isfinite(values).all()
    np.testing.assert_allclose(jnp.sum(jnp.exp(1j * found)), jnp.sum(jnp.exp(1j * expected)), atol=max(1e-5, 50 * eps))
    assert all(np.isfinite(g).all() for g in _gradients(p, parameters))


def test_special_matrices_of_su2_and_u1():
  for p in (jnp.eye(2), -jnp.eye(2)):
    w, logdet = _kernel(p[..., None].astype(jnp.complex128), _parameters(2, 1))
    np.testing.assert_allclose(w[..., 0], np.eye(2), atol=1e-14)
    assert np.isfinite(logdet).all()
  w, _ = _kernel(-jnp.ones((1, 1, 1), jnp.complex128), _parameters(1, 1))
  assert abs(abs(w[0, 0, 0]) - 1) < 1e-14


def test_other_groups_are_refused():
  with pytest.raises(ValueError, match="not Nc = 4"):
    spectral.eigenphases(jnp.zeros((4, 4, 1), complex))
