import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checkers import check_operator, transform_spinor
from fields import links, normal, spinor, unit_links
from programs import slow

from flowqcd.lattice import checkerboard, exponential, group, sites, spin
from flowqcd.theory import determinant, dirac, observables, pseudofermion, solvers

CASES = pytest.mark.parametrize(
  "nc, lattice", [(1, (4, 6)), (2, (4, 4)), (3, (2, 4)), (2, (2, 4, 2, 2)), (3, (2, 2, 4, 2))]
)
PHASES = {2: (-1.0, 1j), 4: (-1.0, 1.0, -1.0, 1j)}


def _dense_wilson(u, kappa, boundary):
  """D written site by site in NumPy, [(spin, colour, site), same]."""
  lattice, nd, nc = u.shape[3:], u.shape[0], u.shape[1]
  gamma, ns = spin.gammas(nd), spin.components(nd)
  index = np.arange(np.prod(lattice)).reshape(lattice)
  d = np.eye(ns * nc * index.size, dtype=complex).reshape((ns, nc, index.size) * 2)
  u = np.asarray(u)
  for x in np.ndindex(*lattice):
    for mu in range(nd):
      ahead = tuple((c + (i == mu)) % n for i, (c, n) in enumerate(zip(x, lattice)))
      phase = boundary[mu] if x[mu] == lattice[mu] - 1 else 1
      link = phase * u[(mu, slice(None), slice(None), *x)]
      hop = lambda sign: np.eye(ns) - sign * gamma[mu]
      here, there = index[x], index[ahead]
      d[:, :, here, :, :, there] -= kappa * np.einsum("st,ab->satb", hop(1), link)
      d[:, :, there, :, :, here] -= kappa * np.einsum("st,ab->satb", hop(-1), link.conj().T)
  n = ns * nc * index.size
  return d.reshape(n, n)


def _shape(u, parities=1):
  return spin.components(u.shape[0]), u.shape[1], int(np.prod(u.shape[3:])) // parities


@CASES
def test_wilson_is_the_dense_matrix(nc, lattice):
  u, boundary = links(nc, lattice), PHASES[len(lattice)]
  d = dirac.wilson(u, 0.17, boundary)
  matrix = determinant.dense(d.apply, _shape(u), u.dtype)
  np.testing.assert_allclose(matrix, _dense_wilson(u, 0.17, boundary), atol=1e-14)
  adjoint = determinant.dense(d.adjoint, _shape(u), u.dtype)
  np.testing.assert_allclose(adjoint, matrix.conj().T, atol=1e-14)


@CASES
def test_operators_keep_their_contract(nc, lattice):
  u, boundary = links(nc, lattice), PHASES[len(lattice)]
  make = lambda u: dirac.wilson(u, 0.17, boundary)
  check_operator(make, u, _shape(u), transform_spinor, dirac.gamma5)
  check_operator(lambda u: dirac.normal(make(u), 1e-3), u, _shape(u), transform_spinor)
  odd = lambda psi, g: checkerboard.split(
    transform_spinor(checkerboard.merge(jnp.zeros_like(psi), psi, lattice), g), lattice
  )[1]
  check_operator(lambda u: dirac.schur(u, 0.17, boundary), u, _shape(u, 2), odd, dirac.gamma5)
  for parity in (0, 1):
    check_operator(lambda u, p=parity: dirac.parity_blocks(u, boundary)[p], u, _shape(u, 2))


@pytest.mark.parametrize("nc, lattice", [(1, (4, 6)), (3, (2, 4)), slow(2, (2, 4, 2, 2)), (1, (3, 4))])
def test_a_twisted_mass_against_the_dense_matrix(nc, lattice):
  """Determinant, Schur complement and pion of D + i mu gamma5, where extents allow even/odd and where not."""
  u, boundary, kappa, mu = links(nc, lattice), PHASES[len(lattice)], 0.17, 0.4
  d = _dense_wilson(u, kappa, boundary)
  gamma5 = np.diag(dirac.gamma5(np.ones(_shape(u))).ravel())
  expected = np.linalg.slogdet(d @ d.conj().T + mu**2 * np.eye(len(d)))[1]
  np.testing.assert_allclose(2 * determinant.log_det(u, kappa, boundary, mu), expected, rtol=1e-11)
  propagator = np.linalg.inv(d + 1j * mu * gamma5).reshape(*_shape(u), *_shape(u))[..., 0]
  pion = np.sum(np.abs(propagator) ** 2, axis=(0, 1, 3, 4)).reshape(lattice[0], -1).sum(axis=1)
  found = observables.pion_correlator(u, kappa, boundary, twisted_mass=mu)
  np.testing.assert_allclose(found, pion, rtol=1e-9)
  check_operator(lambda u: dirac.twisted(u, kappa, mu, boundary), u, _shape(u), transform_spinor)
  if all(n % 2 == 0 for n in lattice):
    schur = lambda u: dirac.schur(u, kappa, boundary, mu)
    check_operator(schur, u, _shape(u, 2))
    dense = determinant.dense(schur(u).apply, _shape(u, 2), u.dtype)
    phase = np.linalg.slogdet(dense)[0] / np.linalg.slogdet(d + 1j * mu * gamma5)[0]
    np.testing.assert_allclose(phase, 1.0, rtol=1e-11)
    # Why it needs no regulator.
    assert np.linalg.eigvalsh(dense @ dense.conj().T)[0] > mu**2


@pytest.mark.parametrize("make, parities", [(dirac.wilson, 1), (dirac.schur, 2)])
def test_derivatives_are_those_of_differences(make, parities):
  """T^a d^a Re <a, A b> against a fourth-order difference along a random direction of the links."""
  u, boundary = links(3, (2, 4)), PHASES[2]
  a, b = spinor(u, parities, 1), spinor(u, parities, 2)
  v = sites.flatten(u)
  x = group.project(normal(v.shape, complex))

  @jax.jit
  def value(e):
    moved = sites.unflatten(group.mul(exponential.exp(e * x), v), (2, 4))
    return jnp.vdot(a, make(moved, 0.17, boundary).apply(b)).real

  slope = (8 * (value(1e-3) - value(-1e-3)) - (value(2e-3) - value(-2e-3))) / 12e-3
  found = jax.jit(lambda u: make(u, 0.17, boundary).derivative(a, b))(u)
  inner = np.sum(np.asarray(group.to_coordinates(x)) * np.asarray(group.to_coordinates(found)))
  assert inner == pytest.approx(float(slope), rel=1e-9)


def test_normal_operator_and_its_regulator():
  u = links(2, (2, 4))
  d, psi = dirac.wilson(u, 0.17), spinor(u)
  found = jax.jit(dirac.normal(d, 0.3).apply)(psi)
  np.testing.assert_allclose(found, jax.jit(lambda x: d.apply(d.adjoint(x)))(psi) + 0.3 * psi, rtol=1e-12)


@CASES
def test_schur_complement_has_the_determinant(nc, lattice):
  u, boundary = links(nc, lattice), PHASES[len(lattice)]
  d = _dense_wilson(u, 0.14, boundary)
  full, regulated = (np.linalg.slogdet(x)[1] for x in (d, d @ d.conj().T + 0.3 * np.eye(len(d))))
  log_det = jax.jit(lambda u: determinant.log_det(u, 0.14, boundary))
  np.testing.assert_allclose(log_det(u), full, rtol=1e-10, atol=1e-10)
  for mu0, wanted in ((0.0, 2 * full), (0.3, regulated)):
    found = jax.jit(lambda u, m=mu0: determinant.log_det_regulated(u, 0.14, boundary, m))(u)
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
  "nc, lattice, boundary",
  [(1, (4, 8), (-1, 1)), (3, (3, 5), (1, 1)), (2, (4, 6), (-1, -1)), (3, (4, 2, 3, 4), (-1, 1, 1, 1))],
)
def test_free_quarks(nc, lattice, boundary):
  u, kappa = unit_links(nc, lattice), 0.11
  exact = oracles.free_log_det(nc, lattice, kappa, boundary)
  np.testing.assert_allclose(determinant.log_det(u, kappa, boundary), exact, atol=1e-10)
  pion = observables.pion_correlator(u, kappa, boundary)
  np.testing.assert_allclose(pion, oracles.free_pion(nc, lattice, kappa, boundary), rtol=1e-11)


@pytest.mark.parametrize("lattice", [(4, 6), (3, 4), (2, 4, 2, 4), (2, 3, 2, 4)])
def test_pion_from_the_dense_inverse_at_any_source(lattice):
  u, boundary = links(2, lattice), PHASES[len(lattice)]
  source = tuple(n - 1 for n in lattice)
  inverse = np.linalg.inv(_dense_wilson(u, 0.13, boundary)).reshape(_shape(u) * 2)
  column = inverse[..., int(np.ravel_multi_index(source, lattice))]
  density = np.sum(np.abs(column) ** 2, axis=(0, 1, 3, 4)).reshape(lattice[0], -1).sum(axis=1)
  found = observables.pion_correlator(u, 0.13, boundary, source)
  np.testing.assert_allclose(found, np.roll(density, -source[0]), rtol=1e-10)


def test_wrong_boundaries_and_sources_are_named():
  u = links(3, (2, 2, 2, 2))
  with pytest.raises(ValueError, match="4 boundary phases"):
    determinant.log_det(u, 0.1, (1, 1))
  with pytest.raises(ValueError, match="not a site"):
    observables.pion_correlator(u, 0.1, source=(0, 0, 2, 0))
  with pytest.raises(checkerboard.ParityError):
    dirac.schur(links(1, (3, 4)), 0.1).apply(jnp.zeros((2, 1, 6), complex))


def test_no_wilson_quarks_in_three_dimensions():
  with pytest.raises(ValueError, match="not 3"):
    determinant.log_det(links(2, (2, 2, 2)), 0.1)


def test_cg_solves_and_reports():
  u = links(3, (2, 2, 4, 2))
  a = dirac.normal(dirac.wilson(u, 0.12, None))
  b = pseudofermion.gaussian(jax.random.key(0), u, 1)
  solution = solvers.cg(a.apply, b)
  assert bool(solution.converged) and solution.residual < 1e-12
  np.testing.assert_allclose(a.apply(solution.x), b, atol=1e-11)
  assert solvers.cg(a.apply, jnp.zeros_like(b)).converged
  single = solvers.cg(dirac.normal(dirac.wilson(u.astype(jnp.complex64), 0.12, None)).apply, b.astype(jnp.complex64))
  assert single.residual.dtype == jnp.float32 and bool(single.converged)


def test_cg_never_returns_an_unconverged_solution():
  u = links(3, (2, 2, 4, 2))
  a = dirac.normal(dirac.wilson(u, 0.12, None))
  b = pseudofermion.gaussian(jax.random.key(0), u, 1)
  short = solvers.cg(a.apply, b, max_iterations=3)
  assert not short.converged and np.isnan(short.x).all() and short.residual > 1e-6
  with pytest.raises(solvers.ConvergenceError, match="after 3 iterations"):
    solvers.require(short)
  # Free massless quarks, kappa = 1/8 with periodic boundaries, have an exact zero mode.
  with pytest.raises(solvers.ConvergenceError, match="kappa"):
    observables.pion_correlator(unit_links(3, (4, 4, 4, 4)), 0.125, (1, 1, 1, 1))


def test_refined_cg_reaches_double_precision_or_says_that_it_does_not():
  u = links(3, (2, 2, 4, 2))
  operator_of = lambda u: dirac.normal(dirac.wilson(u, 0.12, None)).apply
  apply, single = operator_of(u), operator_of(u.astype(jnp.complex64))
  # Far from one, where squares in single precision overflow.
  b = 1e25 * pseudofermion.gaussian(jax.random.key(0), u, 1)
  solution = jax.jit(lambda b: solvers.refined_cg(apply, single, b))(b)
  assert solution.x.dtype == jnp.complex128 and bool(solution.converged)
  np.testing.assert_allclose(solution.x, solvers.cg(apply, b).x, rtol=0, atol=1e-11 * np.abs(b).max())
  coarse = solvers.refined_cg(apply, single, b, 1e-4)
  assert coarse.iterations < solution.iterations and 1e-12 < coarse.residual < 1e-4
  assert solvers.refined_cg(apply, single, jnp.zeros_like(b)).converged
  for hopeless in (
    solvers.refined_cg(apply, single, b, max_iterations=1),
    solvers.refined_cg(apply, lambda x: 100 * single(x), b),
    solvers.refined_cg(apply, single, b.at[0, 0, 0].set(jnp.nan)),
  ):
    assert not hopeless.converged and np.isnan(hopeless.x).all()


def test_determinant_gradients():
  u, kappa, mu0 = links(2, (2, 4)), 0.2, 0.01
  exact = jax.grad(lambda u: determinant.log_det_regulated(u, kappa, None, mu0))(u)
  direction = jax.random.normal(jax.random.key(1), u.shape, u.dtype)
  f = lambda e: determinant.log_det_regulated(u + e * direction, kappa, None, mu0)
  slope = (f(1e-5) - f(-1e-5)) / 2e-5
  np.testing.assert_allclose(jnp.sum(exact * direction).real, slope, rtol=1e-7)
  # The stochastic one is unbiased: its mean over many noise vectors agrees along any direction.
  surrogate = determinant.stochastic_surrogate(lambda u: dirac.wilson(u, kappa, None), _shape(u), mu0, num_noise=1)
  draw = jax.jit(jax.vmap(lambda k: jnp.sum(jax.grad(surrogate, 1)(k, u) * direction).real))
  found = np.asarray(draw(jax.random.split(jax.random.key(2), 20_000)))
  error = found.std() / np.sqrt(len(found))
  assert abs(found.mean() - slope) < 4 * error and error < 0.05 * abs(slope) + 0.05


def test_determinant_works_under_vmap_and_on_every_device_at_once():
  u = jnp.stack([links(2, (2, 4), seed) for seed in range(8)])
  log_det = functools.partial(determinant.log_det, kappa=0.15)
  one_by_one = [float(log_det(x)) for x in u]
  np.testing.assert_allclose(jax.vmap(log_det)(u), one_by_one, rtol=1e-12)
  parallel = jax.pmap(jax.vmap(log_det))(u.reshape(4, 2, *u.shape[1:]))
  np.testing.assert_allclose(np.ravel(parallel), one_by_one, rtol=1e-12)


def test_boundary_phases_only_matter_through_winding():
  # A phase on one slice or spread over all links along it is a (complex) gauge transformation.
  u, n = links(1, (4, 4)), 4
  spread = u.at[0].multiply(np.exp(1j * np.pi / n))
  np.testing.assert_allclose(determinant.log_det(spread, 0.2, (1, 1)), determinant.log_det(u, 0.2, (-1, 1)), rtol=1e-12)
  assert sites.extents(spread) == (4, 4)


@pytest.mark.parametrize("kappa", [0.3, 1.0, 20.0])
def test_determinant_far_above_the_critical_kappa(kappa):
  u, boundary = links(2, (4, 4)), (-1, 1)
  sign, exact = np.linalg.slogdet(_dense_wilson(u, kappa, boundary))
  # Real by gamma5-hermiticity, of either sign.
  assert abs(sign.imag) < 1e-10
  np.testing.assert_allclose(determinant.log_det(u, kappa, boundary), exact, rtol=1e-11)
