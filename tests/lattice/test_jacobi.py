import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.lattice import group, jacobi


def _matrices(n=200):
  real, imaginary = jax.random.normal(jax.random.key(0), (2, 3, 3, n))
  return real + 1j * imaginary


def _triangle(a, sweeps):
  left, right = jacobi.singular_frame(a, sweeps)
  assert group.violation(left) < 1e-13 and group.violation(right) < 1e-13
  return np.moveaxis(np.asarray(group.mul(group.adjoint(left), group.mul(a, right))), -1, 0)


def test_singular_values_against_lapack():
  a = _matrices()
  triangle = _triangle(a, 8)
  diagonal = np.stack([triangle[:, i, i] for i in range(3)], axis=1)
  assert np.abs(triangle - diagonal[:, :, None] * np.eye(3)).max() < 1e-12
  exact = np.linalg.svd(np.moveaxis(np.asarray(a), -1, 0), compute_uv=False)
  np.testing.assert_allclose(np.abs(diagonal), exact, atol=1e-12)
  assert np.abs(diagonal[:, :2].imag).max() < 1e-12
  np.testing.assert_allclose(np.exp(1j * np.angle(diagonal[:, 2])), np.exp(1j * np.angle(group.det(a))), atol=1e-11)


@pytest.mark.parametrize("sweeps", [0, 1, 2])
def test_frames_are_exact_before_they_converge(sweeps):
  triangle = _triangle(_matrices(), sweeps)
  assert np.abs(np.tril(triangle, -1)).max() < 1e-12
  if sweeps == 2:
    # What is left is a few percent of a singular value.
    assert np.median(np.abs(np.triu(triangle, 1)).max(axis=(1, 2))) < 0.02


def test_degenerate_singular_values_are_no_trouble():
  w = group.haar(jax.random.key(1), (3, 3, 50), jnp.complex128)
  triangle = _triangle(6 * w, 2)
  np.testing.assert_allclose(np.abs(triangle), np.broadcast_to(6 * np.eye(3), triangle.shape), atol=1e-12)
  assert np.isfinite(_triangle(jnp.broadcast_to(6.0 * jnp.eye(3)[..., None], (3, 3, 2)) + 0j, 2)).all()
