import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import links

from flowqcd.analysis import weights
from flowqcd.flows import trivializing
from flowqcd.mcmc import annealing, hmc
from flowqcd.models import priors
from flowqcd.theory import gauge, torus
from flowqcd.training import continuity

LATTICE = (4, 4)


@pytest.mark.parametrize(
  "nc, lattice, shapes, lines",
  [
    (1, (3, 4), (), ()),
    (2, (3, 3, 3), ("abcABC", "aabAAB"), (0.3, 0.0, -0.2)),
    (3, (3, 4), ("ababABAB",), ()),
    (3, (4, 3), (), (-0.25, 0.25)),
  ],
)
def test_terms_are_the_rate_of_the_weight(nc, lattice, shapes, lines):
  """d/ds [S_start(U) - S_s(f_s(U)) + log det] at s = start, by a central difference, is -S + sum_k f_k phi_k."""
  u, start, step = links(nc, lattice, 3), 1.3, 1e-4
  slopes = [0.1 * (i + 1) for i in range(len(lines))]
  coefficients = np.random.default_rng(1).normal(size=(8 + len(shapes), 3)) * 0.01
  run = jax.jit(trivializing.path(coefficients, lattice, shapes=shapes))

  def gain(stop):
    end = run(u, start, stop)
    before, after = (gauge.action(s, [x + (s - start) * y for x, y in zip(lines, slopes)]) for s in (start, stop))
    return before.value(u, ()) - after.value(end.point, ()) + end.logdet

  rate = (gain(start + step) - gain(start - step)) / (2 * step)
  found = jax.jit(lambda u, s: continuity.terms(u, s, shapes, continuity.Lines(lines, slopes)))(u, start)
  np.testing.assert_allclose(found.action, gauge.wilson(u, 1.0) + gauge.winding(u, slopes), rtol=1e-12)
  expected = -found.action + (coefficients @ start ** np.arange(3)) @ found.loops
  np.testing.assert_allclose(rate, expected, rtol=1e-6)


def test_dependent_loops_in_single_precision():
  """Rounding does not pass for a direction: coefficients stay of one size where columns depend on each other."""
  rng = np.random.default_rng(3)
  couplings = np.linspace(0, 2, 5)
  phi = rng.normal(size=(5, 400, 2)) * [3.0, 7.0] + 900
  phi = np.concatenate([phi, phi.sum(axis=2, keepdims=True)], axis=2)
  action = phi @ [0.2, -0.1, 0.3] + 0.1 * rng.normal(size=(5, 400))
  found = [continuity.fit(couplings, continuity.Terms(action.astype(t), phi.astype(t)), degree=2) for t in ("f4", "f8")]
  np.testing.assert_allclose(*(fit.coefficients for fit in found), atol=2e-3)
  np.testing.assert_allclose(*(fit.residual for fit in found), rtol=1e-3)


def _samples(couplings, nc=3, streams=64, trajectories=20):
  """Terms of independent streams of HMC at each coupling."""

  def one(beta, key):
    kernel = hmc.make(gauge.action(beta), tau=1.0, steps=6)
    u = priors.haar(nc, LATTICE, jnp.complex128).sample(key)
    step = lambda u, key: (kernel.step(key, hmc.State(u)).state.u, None)
    u, _ = jax.lax.scan(step, u, jax.random.split(key, trajectories))
    return continuity.terms(u, beta)

  run = jax.jit(jax.vmap(jax.vmap(one, (None, 0))))
  keys = jax.random.split(jax.random.key(2), (len(couplings), streams))
  return jax.tree.map(np.asarray, run(jnp.asarray(couplings), keys))


def test_nothing_is_left_at_strong_coupling():
  """At s = 0 the plaquette alone solves the equation; away from it what is left grows like s^4."""
  couplings = [0.0, 0.2, 0.4, 0.8]
  fit = continuity.fit(couplings, _samples(couplings), degree=2)
  assert fit.residual[0] < 1e-5 * fit.variance[0]
  assert np.all(fit.residual < 2e-3 * fit.variance)
  # W5 - W6 is a multiple of W0 in SU(3) (Cayley-Hamilton): the coefficient of all of it is Luescher's.
  f = fit.coefficients[:, 0]
  np.testing.assert_allclose(f[0] + (f[6] - f[5]), trivializing.analytic_coefficients(
    trivializing.pure_gauge(1.0, 2), 3, LATTICE, 1, 0
  )[0, 0], rtol=0.02)  # fmt: skip


def test_fit_finds_the_coefficients_of_made_up_data():
  rng = np.random.default_rng(5)
  s, phi = np.linspace(0, 2, 5), rng.normal(size=(5, 200, 8)) * np.logspace(-3, 3, 8)
  true = rng.normal(size=(8, 3)) / np.logspace(-3, 3, 8)[:, None]
  action = np.einsum("nik,kj,nj->ni", phi, true, s[:, None] ** np.arange(3)) + 7.0
  fit = continuity.fit(s, continuity.Terms(action, phi), degree=2, cutoff=1e-12)
  np.testing.assert_allclose(fit.coefficients, true, rtol=1e-8)
  assert np.all(fit.residual < 1e-16 * fit.variance)


def test_schedule():
  found = continuity.schedule([1.0, 2.0, 3.0], np.array([0.0, 0.0, 9.0]), 8)
  assert (found[0], found[-1], len(found)) == (1.0, 3.0, 9)
  steps = np.diff(found)
  assert np.all(steps > 0) and steps[-1] < 0.5 * steps[0]
  assert steps.max() <= 2 * 2.0 / 8 + 1e-9


def test_flows_between_stages_on_a_2d_torus():
  """ln Z is exact, and a few stages do what without flows would take many."""
  beta, count = 4.0, 512
  nodes = np.linspace(0.0, beta, 6)
  fit = continuity.fit(nodes, _samples(nodes), degree=3)
  run = lambda transport: annealing.make(
    gauge.action,
    continuity.schedule(nodes, fit.residual, 6),
    lambda c: hmc.make(gauge.action(c), tau=1.0, steps=6),
    transport,
  )

  def one(key):
    first, second = jax.random.split(key)
    u = priors.haar(3, LATTICE, jnp.complex128).sample(first)
    zero = jnp.zeros(())
    path = trivializing.path(fit.coefficients, LATTICE)
    return run(path)(second, u, zero).log_w, run(None)(second, u, zero).log_w

  keys = jax.random.split(jax.random.key(4), count)
  flowed, plain = map(np.asarray, jax.jit(lambda k: jax.lax.map(one, k, batch_size=64))(keys))
  found = weights.log_z(flowed)
  assert weights.ess(flowed) > 0.85 > 0.3 > weights.ess(plain)
  assert found.error < 0.02
  assert abs(found.value - torus.exact(3, beta, 16).log_z) < 4 * found.error


def test_bad_input():
  samples = continuity.Terms(np.zeros((3, 5)), np.zeros((3, 5, 8)))
  with pytest.raises(ValueError, match="do not fit each other"):
    continuity.fit([0.0, 1.0], samples)
  with pytest.raises(ValueError, match="4 couplings or more, not 3"):
    continuity.fit([0.0, 1.0, 2.0], samples)
  with pytest.raises(ValueError, match="coefficients of 8 loops, not 7"):
    trivializing.path(np.zeros((7, 2)), LATTICE)
