import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd import presets
from flowqcd.analysis import weights
from flowqcd.flows import family, trivializing
from flowqcd.models import marginal, priors
from flowqcd.theory import gauge, torus
from flowqcd.training import loop, natural, objectives, optimizer

BETA, LATTICE = 1.0, (4, 4)


def _model(aimed_at=BETA, steps=1):
  config = trivializing.Config(steps=steps, degree=2, lines=False)
  flow = trivializing.make(config, trivializing.pure_gauge(aimed_at, 2), 1, LATTICE)
  return marginal.make(priors.haar(1, LATTICE, jnp.complex128), flow)


def _target():
  return objectives.Target(lambda key, u: gauge.wilson(u, BETA), lambda u: gauge.wilson(u, BETA))


def _state(model):
  params = model.init(jax.random.key(0))
  return loop.initial_state(jax.random.key(1), params, optimizer.make(optimizer.Config()))


def _mean(model, params, keys):
  found, outcome = jax.jit(natural.moments(model, _target()))(params, keys)
  return jax.tree.map(lambda x: x / len(keys), found), outcome.log_w


def test_a_step_in_a_model_whose_step_is_known():
  """Normal variables of unit variance with mean m: from m = 0 the whole way to a target of mean a, at once."""
  a = np.array([0.3, -0.2])
  x = np.random.default_rng(0).standard_normal((4000, 2))
  scores, log_w = x, x @ a  # d log q/dm = x - m; log p - log q = a.x + const.
  mean = _moments(scores, log_w)
  step = natural.solve(natural.Config(ridge=1e-9, max_kl=10.0), [mean])
  np.testing.assert_allclose(step.direction, a, rtol=1e-6)
  np.testing.assert_allclose(step.kl, 0.5 * a @ np.cov(x.T, bias=True) @ a, rtol=1e-6)
  short = natural.solve(natural.Config(ridge=1e-9, max_kl=step.kl / 4), [mean])
  np.testing.assert_allclose(short.direction, a / 2, rtol=1e-6)


def _moments(scores, log_w):
  cross = (scores * log_w[:, None]).mean(0)
  return natural.Moments(scores.mean(0), scores.T @ scores / len(scores), cross, log_w.mean(), (log_w**2).mean())


def test_several_couplings_count_by_what_is_left_of_each():
  """Least squares of both at once, each in units of its own spread, means taken off at each coupling."""
  rng = np.random.default_rng(1)
  scores = [rng.standard_normal((3000, 2)) for _ in range(2)]
  log_w = [5.0 + 0.1 * scores[0] @ [1, 2] + 0.1 * rng.standard_normal(3000), scores[1] @ [3, 1] - 7.0]
  step = natural.solve(natural.Config(ridge=1e-9, max_kl=100.0), [_moments(s, w) for s, w in zip(scores, log_w)])
  units = [np.sqrt(0.01 + w.var()) for w in log_w]
  rows = [(s - s.mean(0)) / unit for s, unit in zip(scores, units)]
  right = [(w - w.mean()) / unit for w, unit in zip(log_w, units)]
  best = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right))[0]
  np.testing.assert_allclose(step.direction, best, rtol=1e-6)


def test_a_family_learns_all_its_couplings():
  """One set of parameters is better than the analytic flow at couplings between those of the training too."""
  couplings = [family.Couplings(beta) for beta in (0.5, 0.9, 1.3)]
  members = family.make(family.Config(1.3, order=2), trivializing.Config(steps=2, degree=2, lines=False), 1, LATTICE)

  def at(c):
    model = marginal.make(priors.haar(1, LATTICE, jnp.complex128), members.at(c))
    return model, objectives.Target(None, lambda u: gauge.wilson(u, c.beta))

  @jax.jit
  def log_w(params, beta):
    model, target = at(family.Couplings(beta))
    found = jax.vmap(model.sample, (None, 0))(params, jax.random.split(jax.random.key(9), 1024))
    return -jax.vmap(target.value)(found.u) - found.log_q

  start = members.init(jax.random.key(0))
  state = loop.initial_state(jax.random.key(1), start, optimizer.make(optimizer.Config()))
  step = natural.make_family_step(at, couplings, natural.Config(), 32)
  with pytest.raises(ValueError, match="batch = 6 must be a multiple of the number of devices, 4"):
    step(state, 6)
  for state, metrics in loop.train(state, step, 3, 256):
    assert metrics.taken and metrics.log_w.shape == (3 * 256,)
    means = metrics.log_w.reshape(3, 256).mean(axis=1)
    np.testing.assert_allclose(means, means[0], rtol=1e-9)
  # The loss is KL - ln Z, averaged over the couplings.
  log_z = np.mean([torus.exact(1, c.beta, 16).log_z for c in couplings])
  assert 0 < log_z - means[0] < 0.3
  for beta in (0.7, 0.9, 1.1):
    before, after = (np.var(log_w(params, beta)) for params in (start, state.params))
    assert after < 0.5 * before, (beta, before, after)


def test_moments_are_those_of_the_score():
  """The score's mean vanishes, and Cov(s, log w) is minus the gradient of the reverse KL divergence."""
  model = _model(aimed_at=0.2)
  params, keys = model.init(jax.random.key(0)), jax.random.split(jax.random.key(3), 4096)
  mean, log_w = _mean(model, params, keys)
  spread = np.sqrt(np.diag(mean.square) / len(keys))
  moving = spread > 1e-6 * spread.max()  # Lines play no part here.
  assert np.all(np.abs(np.asarray(mean.score))[moving] < 5 * spread[moving])
  terms = objectives.reverse_kl(model, _target(), path=True)
  gradient = jax.jit(jax.vmap(terms, (None, 0)))(params, keys[:, None])[0]
  gradient = np.asarray(gradient["deviation"]).reshape(len(keys), -1)
  covariance = np.asarray(mean.cross - mean.score * mean.log_w)
  error = np.sqrt(gradient.var(0) / len(keys)) + spread * np.std(log_w)
  assert np.abs(covariance[moving]).max() > 20 * error[moving].min()
  assert np.all(np.abs(covariance + gradient.mean(0))[moving] < 5 * error[moving])


def test_few_steps_reach_the_optimum():
  """From a flow that aims at another coupling, in four steps; another four change nothing. (A coarser flow would drift
  away, into what its step error gains.)"""
  model = _model(aimed_at=0.2, steps=3)
  advance = natural.make_step(model, _target(), natural.Config(), 32)
  state, found = _state(model), []
  evaluate = jax.jit(lambda params: _mean(model, params, jax.random.split(jax.random.key(9), 2048))[1])
  before = evaluate(state.params)
  for last in (4, 8):
    for state, metrics in loop.train(state, advance, last, 512):
      assert metrics.taken
    found.append(evaluate(state.params))
  assert weights.ess(before) < 0.5
  assert min(weights.ess(x) for x in found) > 0.97
  assert abs(weights.ess(found[0]) - weights.ess(found[1])) < 0.005


def test_resumed_steps_repeat_an_uninterrupted_run():
  model = _model()
  advance = lambda: natural.make_step(model, _target(), natural.Config(), 8)
  straight = [s for s, _ in loop.train(_state(model), advance(), 3, 64)]
  resumed = [s for s, _ in loop.train(straight[0], advance(), 3, 64)]
  np.testing.assert_array_equal(straight[-1].params["deviation"], resumed[-1].params["deviation"])


def test_a_batch_that_is_not_finite_changes_nothing():
  model = _model()
  broken = objectives.Target(_target().gradient, lambda u: jnp.nan * gauge.wilson(u, BETA))
  advance = natural.make_step(model, broken, natural.Config(), 8)
  start = _state(model)
  with pytest.raises(loop.Diverged):
    for state, metrics in loop.train(start, advance, 100, 8, max_bad_steps=2):
      assert not metrics.taken
  np.testing.assert_array_equal(state.params["deviation"], start.params["deviation"])
  assert int(state.skipped) == int(state.step) == 2


def test_bad_input():
  model = _model()
  with pytest.raises(ValueError, match="at most natural.max_parameters = 3"):
    natural.make_step(model, _target(), natural.Config(max_parameters=3), 8)(_state(model), 8)
  with pytest.raises(ValueError, match="natural.ridge must be positive"):
    natural.Config(ridge=0.0)
  smoke = presets.PRESETS["smoke"]
  with pytest.raises(ValueError, match="determinant = exact or none"):
    dataclasses.replace(smoke, training=dataclasses.replace(smoke.training, method="natural"))
