import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checkers import check_kernel
from fields import links
from programs import slow
from scipy import stats

from flowqcd.lattice import checkerboard, group, sites
from flowqcd.mcmc import heatbath, hmc, link, link_flow
from flowqcd.theory import observables


def _staples(n, size=6, seed=0):
  """n times the same sum of `size` matrices of SU(3) near each other, with a phase of its determinant."""
  noise = group.gaussian(jax.random.key(seed), (size, 3, 3, 1), jnp.complex128)
  near = group.reunitarise(group.identity(3, jnp.complex128) + 0.5 * noise)
  return jnp.tile(jnp.sum(near, axis=0) * np.exp(0.1j), (1, 1, n))


def _energy(u, staple):
  return np.asarray(group.trace(group.mul(u, staple)).real)


@pytest.mark.parametrize("s", [0.0, 0.2, 1.9])
def test_density_is_that_of_the_dense_jacobian(s):
  n = 4
  f, latent = link.frame(_staples(n), s), link.draw(jax.random.key(1), n, jnp.complex128)
  x, log_w = link.forward(f, latent)
  height, azimuth = latent.direction[2], jnp.angle(latent.direction[0] + 1j * latent.direction[1])
  cube = jnp.stack(
    [*latent.quantiles, *(jnp.angle(latent.phases) / (2 * jnp.pi)), 0.5 + 0.5 * height, azimuth / (2 * jnp.pi)]
  )

  def displacement(cube):
    up = 2 * cube[6] - 1
    around = jnp.sqrt(1 - up**2) * jnp.exp(2j * jnp.pi * cube[7])
    latent = link.Latent(cube[:4], jnp.exp(2j * jnp.pi * cube[4:6]), jnp.stack([around.real, around.imag, up]))
    return group.to_coordinates(group.mul(link.forward(f, latent).x, group.adjoint(x)))

  jacobian = jnp.einsum("avbv->vab", jax.jacrev(displacement)(cube))
  # The volume of SU(3) in these coordinates: S^3 of radius 2, S^5 of radius 2 but for sqrt(3) along its phase.
  log_haar = -np.linalg.slogdet(jacobian)[1] + np.log(256 * np.sqrt(3) * np.pi**5)
  np.testing.assert_allclose(s * _energy(link.from_frame(f, x), _staples(n)) - log_w, log_haar, atol=1e-7)


@pytest.mark.parametrize("s", [0.0, slow(0.2), slow(1.0), 1.9])
def test_inverse_and_reflection(s):
  n = 500
  staple = _staples(n)
  f, latent = link.frame(staple, s), link.draw(jax.random.key(2), n, jnp.complex128)
  x, log_w = link.forward(f, latent)
  inside = np.isfinite(log_w)
  assert inside.mean() > 0.95 and group.violation(x[..., inside]) < 1e-10
  back = link.inverse(f, link.to_frame(f, link.from_frame(f, x)))
  for given, found in zip(latent, back.latent):
    np.testing.assert_allclose(found[..., inside], given[..., inside], atol=1e-7)
  np.testing.assert_allclose(back.log_w[inside], log_w[inside], atol=1e-6)
  for given, found in zip(latent, link.reflect(link.reflect(latent))):
    np.testing.assert_allclose(found, given, atol=1e-15)
  other = link.reflect(latent)
  assert stats.kstest(other.quantiles.ravel(), "uniform").pvalue > 1e-3
  # Every latent number goes to its opposite.
  for part, opposite in zip(other, (1 - latent.quantiles, -latent.phases, -latent.direction)):
    np.testing.assert_array_equal(part, opposite)
  # Reflected, a link above the middle of its energies comes to lie below.
  if s == 1.9:
    energies = [_energy(link.from_frame(f, link.forward(f, z).x), staple) for z in (latent, other)]
    assert np.corrcoef(*energies)[0, 1] < -0.3


@pytest.mark.parametrize("beta", [0.0, slow(1.0), 5.7])
def test_mean_weight_is_the_one_link_integral(beta):
  n = 40_000
  u = group.haar(jax.random.key(3), (3, 3, 1), jnp.complex128)
  f = link.frame(jnp.tile(u, (1, 1, n)), beta / 3)
  w = np.exp(link.forward(f, link.draw(jax.random.key(4), n, jnp.complex128)).log_w)
  exact = next(c for c, _, d in oracles._coefficients(3, beta, 48) if d == 1)
  assert abs(w.mean() - exact) < 4 * w.std() / np.sqrt(n)
  assert w.std() / np.sqrt(n) < 0.01 * exact


@pytest.mark.parametrize("s", [0.2, 1.9])
def test_weights_agree_with_haar_for_any_staple(s):
  n = 40_000
  staple = _staples(n, 3, seed=7) + 0.3 * group.haar(jax.random.key(5), (3, 3, 1), jnp.complex128)
  f = link.frame(staple, s)
  x, log_w = link.forward(f, link.draw(jax.random.key(6), n, jnp.complex128))
  haar = group.haar(jax.random.key(7), (3, 3, n), jnp.complex128)
  for g in (lambda e: np.ones_like(e), lambda e: e):
    a = np.exp(log_w) * g(_energy(link.from_frame(f, x), staple))
    b = np.exp(s * _energy(haar, staple)) * g(_energy(haar, staple))
    assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(n)


def test_gauge_invariance():
  n = 100
  u, g, h = group.haar(jax.random.key(8), (3, 3, 3, n), jnp.complex128)
  staple = sum(group.haar(jax.random.key(k), (3, 3, n), jnp.complex128) for k in range(20, 24))
  found = []
  for u, staple in (
    (u, staple),
    (group.mul(g, group.mul(u, h)), group.mul(group.adjoint(h), group.mul(staple, group.adjoint(g)))),
  ):
    f = link.frame(staple, 1.9, sweeps=8)
    found.append(link.inverse(f, link.to_frame(f, u)))
  np.testing.assert_allclose(found[0].log_w, found[1].log_w, atol=1e-9)
  np.testing.assert_allclose(found[0].latent.quantiles, found[1].latent.quantiles, atol=1e-9)


@pytest.mark.parametrize("s, fresh", [(0.3, True), (1.9, False), slow(0.3, False), slow(1.9, True)])
def test_moves_keep_the_distribution_of_a_link(s, fresh):
  n = 20_000
  staple = _staples(n)
  f = link.frame(staple, s)
  x, log_w = link.forward(f, link.draw(jax.random.key(10), n, jnp.complex128))
  # Links of the exact distribution, by resampling; then moves of which each would shift it if it were not kept.
  exact = jax.random.choice(jax.random.key(11), n, (n,), p=jax.nn.softmax(log_w))
  u = start = link.from_frame(f, x[..., exact])
  update = jax.jit(lambda key, u: link_flow.update(key, u, staple, s, fresh))
  for k in range(6):
    u, probability = update(jax.random.key(12 + k), u)
  assert group.violation(u) < 1e-9 and np.abs(u - start).max() > 0.5
  assert np.mean(probability) > 0.7
  energies = _energy(start, staple), _energy(u, staple)
  weights = np.exp(log_w - np.max(log_w))
  all_energies = _energy(link.from_frame(f, x), staple)
  for power in (1, 2):
    mean = np.average(all_energies**power, weights=weights)
    after = energies[1] ** power
    # Copies of one sample are no independent ones: the error of the resampled mean is that of both.
    error = np.hypot(after.std(), (weights * (all_energies**power - mean)).std() / weights.mean()) / np.sqrt(n)
    assert abs(after.mean() - mean) < 4 * error
  middle = group.trace(u).imag - group.trace(start).imag
  assert abs(middle.mean()) < 4 * middle.std() / np.sqrt(n)


@pytest.mark.parametrize("beta, reflections, overrelaxation", [slow(1.0, 0, 0), (6.0, 2, 1)])
def test_plaquette_on_a_2d_torus(beta, reflections, overrelaxation):
  exact = oracles.plaquette_2d(3, beta, 16)
  kernel = link_flow.make(beta, reflections, overrelaxation)
  start = np.stack([links(3, (4, 4), seed) for seed in range(32)])
  error = check_kernel(kernel, start, jax.random.key(7), observables.mean_plaquette, exact, 250, 30)
  assert error < 0.004


def test_four_dimensions_in_single_precision():
  """At beta = 5.7 against the heat bath, from unit links, whose staples have equal singular values."""
  beta, streams = 5.7, 16
  u = jnp.ones((streams, 1, 1, 1, 1, 1, 1, 1)) * jnp.eye(3, dtype=jnp.complex64)[:, :, None, None, None, None]
  u = jnp.broadcast_to(u, (streams, 4, 3, 3, 2, 2, 2, 2))
  both = []
  for kernel, steps in ((link_flow.make(beta), 100), (heatbath.make(beta), 150)):

    def body(u, key, kernel=kernel):
      state, info = jax.vmap(kernel.step)(jax.random.split(key, streams), hmc.State(u))
      return state.u, (jax.vmap(observables.mean_plaquette)(state.u), info)

    end, (values, info) = jax.jit(lambda u, k, body=body: jax.lax.scan(body, u, k))(
      u, jax.random.split(jax.random.key(4), steps)
    )
    assert jax.vmap(lambda u: group.violation(sites.flatten(u)))(end).max() < 2e-6
    if isinstance(info, link_flow.Info):
      assert 0.9 < np.mean(info.probability) < 1
    means = np.asarray(values, float)[steps // 3 :].mean(axis=0)
    both.append((means.mean(), means.std(ddof=1) / np.sqrt(streams)))
  (a, da), (b, db) = both
  assert abs(a - b) < 4 * np.hypot(da, db) and np.hypot(da, db) < 0.01


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="beta >= 0"):
    link_flow.make(-1.0)
  with pytest.raises(ValueError, match="negative number"):
    link_flow.make(1.0, -1)
  step = link_flow.make(1.0).step
  with pytest.raises(ValueError, match="SU\\(3\\)"):
    step(jax.random.key(0), hmc.State(links(2, (4, 4))))
  with pytest.raises(checkerboard.ParityError):
    step(jax.random.key(0), hmc.State(links(3, (3, 4))))
