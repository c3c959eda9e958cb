"""Conditional and joint models: densities, unbiased determinants, training by reverse KL."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import initial, links, normal
from programs import slow

from flowqcd.analysis import weights
from flowqcd.flows import ptcn
from flowqcd.mcmc import metropolis
from flowqcd.models import conditional, joint
from flowqcd.runs import conditionals
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.theories import Theory
from flowqcd.theory import determinant, dirac, pseudofermion
from flowqcd.training import loop, objectives, optimizer
from flowqcd.types import ConditionalFlow, LinearFlow

SCHWINGER = Theory(nc=1, lattice=(4, 4), beta=1.0, kappa=0.2, boundary=(-1.0, 1.0))
SU3 = Theory(nc=3, lattice=(4, 4), beta=3.0, kappa=0.15, boundary=(-1.0, 1.0))
FOUR = Theory(nc=2, lattice=(2, 2, 2, 4), beta=1.0, kappa=0.08)
SMALL = ptcn.Config(layers=8, hops=2, copies=2, trunk=2)
CHOICES = {
  "hopping": Conditional(kind="hopping"),
  "full": Conditional(kind="hopping", even_odd=False),
  "both": Conditional(kind="both", ptcn=SMALL),
  "networks": Conditional(kind="ptcn", ptcn=SMALL, even_odd=False),
  "hasenbusch": Conditional(kind="hopping", hasenbusch_mass=0.4),
}


def _model(theory, choice, mu0=0.0):
  return conditionals.model(CHOICES[choice], theory, "double", mu0)


@pytest.mark.parametrize(
  "theory, choice",
  [
    *((SCHWINGER, name) for name in ("hopping", "both", "networks", "hasenbusch")),
    (SU3, "hopping"),
    (FOUR, "full"),
    slow(SCHWINGER, "full"),
    slow(SU3, "networks"),
    slow(FOUR, "hasenbusch"),
  ],
)
def test_draws_estimate_the_determinant(theory, choice):
  """The mean of e^{-S_pf}/q over draws is det D D^dag; draws and log_prob agree on q."""
  if choice == "networks":
    # Untrained networks are near the identity, which only a heavy quark's determinant is near to.
    theory = dataclasses.replace(theory, kappa=0.02 if theory.nc > 1 else 0.05)
  u, model = links(theory.nc, theory.lattice), _model(theory, choice)
  params = initial(model)
  draw = jax.jit(model.draw)(params, u, jax.random.key(1))
  assert float(jax.jit(model.log_prob)(params, u, draw.phi)) == pytest.approx(float(draw.log_q), abs=1e-8)
  exact = 2 * float(determinant.log_det(u, theory.kappa, theory.boundary))
  log_draws = np.asarray(jax.jit(joint.log_determinant(model, 4096, 64))(params, u, jax.random.key(2)).log_draws)
  for n in (1, 8, 512):
    means = weights.log_mean_weight(log_draws[: 4096 // n * n].reshape(-1, n))
    estimate = weights.log_z(means)
    assert estimate.error < 0.2, "the model is too far from the determinant for this test to say anything"
    assert abs(estimate.value - exact) < 4 * estimate.error + estimate.error**2


def test_first_draws_of_many_are_those_of_few_in_any_chunks():
  u, model = links(1, (4, 4)), _model(SCHWINGER, "hopping")
  params = initial(model)
  many = jax.jit(joint.log_determinant(model, 12, 5))(params, u, jax.random.key(3))
  few = jax.jit(joint.log_determinant(model, 4, 4))(params, u, jax.random.key(3))
  rest = jax.jit(joint.log_determinant(model, 8, 4, first=4))(params, u, jax.random.key(3))
  np.testing.assert_allclose(many.log_draws, np.append(few.log_draws, rest.log_draws), rtol=1e-10, atol=1e-10)
  assert float(few.log_mean) == pytest.approx(np.log(np.mean(np.exp(few.log_draws))), abs=1e-10)
  with pytest.raises(ValueError, match="at least 1"):
    joint.log_determinant(model, 0)


def test_pseudo_marginal_chain_samples_the_exact_law():
  """Two gauge fields proposed equally, with estimated determinants: the chain visits them as the exact ones say."""
  fields = [links(1, (4, 4), seed) for seed in (1, 2)]
  model = _model(dataclasses.replace(SCHWINGER, kappa=0.22), "hopping")
  params, n = initial(model), 20_000
  estimate = jax.jit(lambda u, key: jax.lax.map(lambda k: run(params, u, k).log_mean, key, batch_size=500))
  run = joint.log_determinant(model, 2, 2)
  log_w = np.stack([np.asarray(estimate(u, jax.random.split(jax.random.key(i), n))) for i, u in enumerate(fields)])
  which = np.asarray(jax.random.bernoulli(jax.random.key(7), 0.5, (n,))).astype(int)
  chain = metropolis.chain(jax.random.key(8), jnp.asarray(log_w[which, np.arange(n)]))
  visited = which[np.asarray(chain.index)]
  exact = [2 * float(determinant.log_det(u, 0.22, SCHWINGER.boundary)) for u in fields]
  wanted = 1 / (1 + np.exp(exact[0] - exact[1]))
  blocks = visited.reshape(100, -1).mean(axis=1)
  assert abs(visited.mean() - wanted) < 4 * blocks.std(ddof=1) / 10
  assert 0.05 < wanted < 0.95


@pytest.mark.parametrize("choice", ["hopping", "both", "hasenbusch"])
def test_gradient_of_the_loss_is_that_of_the_mean(choice):
  """At fixed random numbers, against a finite difference of log q + S along a random direction."""
  u, model = links(1, (4, 4)), _model(SCHWINGER, choice, mu0=1e-3)
  params = initial(model)
  propose = lambda fixed, key: objectives.Proposal(fixed, jnp.zeros(()))
  gradient, _ = jax.jit(objectives.conditional_kl(propose, model))(params, jax.random.key(5)[None], u)
  seeds = iter(range(100))
  direction = jax.tree.map(lambda x: normal(x.shape, x.dtype, next(seeds)), params)
  key = jax.random.fold_in(jax.random.split(jax.random.key(5))[1], 0)

  @jax.jit
  def loss(e):
    draw = model.draw(jax.tree.map(lambda x, d: x + e * d, params, direction), u, key)
    return draw.action + draw.log_q

  slope = sum(float(np.sum(np.asarray(g) * d)) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
  h = 1e-4
  difference = float(8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
  assert slope == pytest.approx(difference, rel=1e-5, abs=1e-5)


def _scaled_operator(kappa):
  """phi = c D z with one parameter c: the exact flow for c = 1."""

  def at(params, u):
    a = determinant.dense(dirac.wilson(u, kappa, (-1.0, 1.0)).apply, (2, u.shape[1], u[0, 0, 0].size), u.dtype) * params
    times = lambda m, x: (m @ x.ravel()).reshape(x.shape)
    logdet = 2 * jnp.linalg.slogdet(a)[1]
    return LinearFlow(lambda z: times(a, z), lambda phi: jnp.linalg.solve(a, phi.ravel()).reshape(phi.shape), logdet)

  flow = ConditionalFlow(lambda key: jnp.ones(()), at)
  return conditional.make([conditional.Factor(flow, pseudofermion.plain(kappa, (-1.0, 1.0), 0.0, (1e-9, 1e-9)), 1)])


def test_path_gradients_vanish_at_the_optimum_and_have_the_mean_of_the_others():
  u, model = links(1, (4, 4)), _scaled_operator(0.15)
  propose = lambda fixed, key: objectives.Proposal(fixed, jnp.zeros(()))

  def gradients(c, path, n):
    run = objectives.conditional_kl(propose, model, 1, path)
    one = lambda key: run((jnp.asarray(c),), key[None], u)[0][0]
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), n)))

  assert np.abs(gradients(1.0, True, 16)).max() < 1e-6 < 1 < np.abs(gradients(1.0, False, 16)).max()
  # KL = c^2 n - 2 n ln c + const for n complex components.
  exact = 2 * 32 * (1.3 - 1 / 1.3)
  for path in (True, False):
    found = gradients(1.3, path, 400)
    assert abs(found.mean() - exact) < 4 * found.std() / 20


@pytest.mark.parametrize("path", [False, True])
def test_draw_variance_is_that_of_log_w_at_fixed_links(path):
  """|(A^dag (D D^dag)^{-1} A - 1) z|^2, whose mean is the variance: here |0.44 z|^2; the hopping flow by many draws."""
  u, propose = links(1, (4, 4)), lambda fixed, key: objectives.Proposal(fixed, jnp.zeros(()))
  run = jax.jit(objectives.conditional_kl(propose, _scaled_operator(0.15), 2, path))
  outcome = run((jnp.asarray(1.2),), jax.random.key(5)[None], u)[1]
  key = jax.random.split(jax.random.key(5))[1]
  z = [_scaled_operator(0.15).at((1.0,), u).noise(jax.random.fold_in(key, i))[0] for i in range(2)]
  np.testing.assert_allclose(
    outcome.draw_variance[0], [0.44**2 * float(jnp.sum(jnp.abs(x) ** 2)) for x in z], rtol=1e-6
  )

  model = _model(dataclasses.replace(SCHWINGER, kappa=0.22), "hopping")
  run = objectives.conditional_kl(propose, model, 2000, path)
  outcome = jax.jit(run)(model.init(jax.random.key(0)), jax.random.key(6)[None], u)[1]
  log_w, found = np.asarray(outcome.log_w[0]), np.asarray(outcome.draw_variance[0])
  squares = (log_w - log_w.mean()) ** 2
  assert abs(found.mean() - squares.mean()) < 4 * squares.std() / 2000**0.5
  # What it is for: its own error is smaller by far.
  assert found.std() < 0.3 * squares.std()


def test_several_draws_are_the_mean_of_single_ones():
  u, model = links(1, (4, 4)), _model(SCHWINGER, "hopping", mu0=1e-3)
  params = initial(model)
  propose = lambda fixed, key: objectives.Proposal(fixed, jnp.asarray(0.5))
  for path in (False, True):
    run = jax.jit(objectives.conditional_kl(propose, model, 3, path))
    gradient, outcome = run(params, jax.random.key(5)[None], u)
    key = jax.random.split(jax.random.key(5))[1]

    @jax.jit
    def one(i):
      def loss(params):
        draw = model.draw(params, u, jax.random.fold_in(key, i))
        log_q = model.log_prob(jax.lax.stop_gradient(params), u, draw.phi) if path else draw.log_q
        return log_q + draw.action

      return jax.value_and_grad(loss)(params)

    losses, gradients = zip(*map(one, range(3)))
    wanted = jax.tree.map(lambda *g: sum(g) / 3, *gradients)
    # Gradients have the first power of the solver's tolerance, 1e-6.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, wanted)
    np.testing.assert_allclose(outcome.log_w[0], 0.5 - np.array(losses), rtol=1e-8)


def test_training_lowers_the_loss_of_the_hopping_flow():
  theory = dataclasses.replace(SCHWINGER, kappa=0.25, lattice=(8, 8))
  model, u = _model(theory, "hopping"), links(1, (8, 8))
  propose = lambda fixed, key: objectives.Proposal(fixed, jnp.zeros(()))
  params = model.init(jax.random.key(0))
  transformation = optimizer.make(
    optimizer.Config(epsilon=1e-5, max_value=10.0), optimizer.stairs((30, 30), (1e-2, 3e-3))
  )
  state = loop.initial_state(jax.random.key(1), params, transformation)
  gradient = objectives.conditional_kl(propose, model)
  for state, _ in loop.train(state, loop.make_step(gradient, transformation, 8, fixed=(u,)), 60, 32):
    pass
  estimate = jax.jit(joint.log_determinant(model, 1024, 64))
  loss = lambda p: -np.asarray(estimate(p, u, jax.random.key(2)).log_draws)
  before, after = loss(params), loss(state.params)
  gain = before - after
  assert gain.mean() > 5 * gain.std() / 32
