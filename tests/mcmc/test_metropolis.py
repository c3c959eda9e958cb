import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checkers import check_kernel

from flowqcd.analysis import statistics, weights
from flowqcd.mcmc import metropolis
from flowqcd.models import priors
from flowqcd.theory import gauge, observables

BETA = 0.7
PRIOR = priors.haar(1, (2, 2), jnp.complex128)


def _propose(key):
  u = PRIOR.sample(key)
  return metropolis.Proposal(u, -gauge.wilson(u, BETA))


def test_kernel_samples_the_target():
  exact = oracles.plaquette_2d(1, BETA, 4)
  u = jax.vmap(PRIOR.sample)(jax.random.split(jax.random.key(0), 256))
  error = check_kernel(metropolis.make(_propose), u, jax.random.key(1), observables.mean_plaquette, exact, 700)
  assert error < 0.003


def test_chain_over_a_stream_samples_the_target():
  exact = oracles.plaquette_2d(1, BETA, 4)
  u, log_w = jax.vmap(_propose)(jax.random.split(jax.random.key(2), 40_000))
  plaquette = np.asarray(jax.vmap(observables.mean_plaquette)(u))
  chain = metropolis.chain(jax.random.key(3), log_w)
  found = statistics.chain_mean(plaquette[np.asarray(chain.index)][None])
  assert abs(found.value - exact) < 4 * found.error
  reweighted = weights.reweighted_mean(np.asarray(log_w), plaquette)
  assert abs(reweighted.value - exact) < 4 * reweighted.error
  # Detailed balance for independent proposals: acceptance is E[min(w, w')]/E[w] over pairs.
  w = np.exp(np.asarray(log_w) - np.max(log_w))
  expected = np.minimum(w[::2], w[1::2]).mean() / w.mean()
  assert np.mean(chain.accepted[1:]) == pytest.approx(expected, abs=0.01)


def test_equal_weights_are_always_accepted():
  chain = metropolis.chain(jax.random.key(0), jnp.zeros(50))
  assert np.asarray(chain.accepted).all()
  np.testing.assert_array_equal(chain.index, np.arange(50))


def test_one_dominating_weight_is_reported_as_what_it_is():
  log_w = np.zeros(1000)
  log_w[0] = 200.0
  chain = metropolis.chain(jax.random.key(0), jnp.asarray(log_w))
  assert not np.asarray(chain.accepted[1:]).any()
  diagnosis = statistics.chain_diagnosis(np.asarray(chain.accepted[1:]), np.asarray(chain.index[1:]) * 1.0)
  assert any("accepted no proposal" in m for m in diagnosis.messages)
  with pytest.raises(statistics.UnhealthyChainError):
    statistics.require_healthy(diagnosis)
  assert weights.diagnose(log_w).messages


@pytest.mark.parametrize(
  "new, old, expected",
  [
    (0.0, 0.0, 1.0),
    (-1.0, 0.0, np.exp(-1)),
    (5.0, -np.inf, 1.0),
    (-np.inf, 0.0, 0.0),
    (-np.inf, -np.inf, 0.0),
    (np.nan, 0.0, 0.0),
  ],
)
def test_acceptance_probability_at_the_edges(new, old, expected):
  found = metropolis.acceptance_probability(jnp.asarray(new), jnp.asarray(old))
  assert float(found) == pytest.approx(expected)


def test_complex_log_weights_are_refused():
  with pytest.raises(TypeError, match="real part"):
    metropolis.chain(jax.random.key(0), jnp.array([0, 1j]))
  with pytest.raises(TypeError, match="real part"):
    metropolis.acceptance_probability(jnp.zeros(()), jnp.zeros((), complex))
