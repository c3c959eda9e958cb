"""Runs that are told to go on for longer end as if that had been said at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd import experiment, presets
from flowqcd.analysis import weights
from flowqcd.io import ensembles, metrics
from flowqcd.mcmc import hmc
from flowqcd.models import joint, marginal, priors
from flowqcd.runs import session
from flowqcd.runs.products import Product
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chains, costs, draws, fitting, sample
from flowqcd.stages.draws import Estimates
from flowqcd.stages.sample import Sampling
from flowqcd.stages.train_conditional import Trained
from flowqcd.training import loop
from flowqcd.types import Flow, FlowResult, Kernel, KernelStep

SMOKE = presets.PRESETS["smoke"]
STREAMS = HMC(streams=3, thermalisation=4, thin=2)
_STEP = Kernel(
  lambda key, u: hmc.State(u),
  lambda key, state: KernelStep(hmc.State(state.u + jax.random.uniform(key, (), state.u.real.dtype)), ()),
)
"""Adds a random number, so that links tell all keys that there were."""
_SAME = Flow(lambda key: {}, *2 * [lambda params, u: FlowResult(u, jnp.zeros((), u.real.dtype))])


def _run(folder):
  session.start(SMOKE.compilation)
  config = dataclasses.replace(SMOKE, output=str(folder), precision="single", hmc=STREAMS)
  run = experiment.claim(config)
  return dataclasses.replace(run, products={**run.products, "random": Product(("random",), ("seed", "theory."))})


def _chain(run, trajectories):
  plan = dataclasses.replace(STREAMS, trajectories=trajectories)
  return chains.fill(run, SMOKE.theory, "random", _STEP, lambda info: {}, plan, salt=20)


def test_a_chain_that_grows_is_the_chain_that_was_long_at_once(tmp_path):
  once = chains.series(_chain(_run(tmp_path / "once"), 46), "u")
  run = _run(tmp_path / "grown")
  # Steps are counted from the start of the thermalisation, so that no two have one key.
  key = lambda step, stream: jax.random.fold_in(jax.random.fold_in(run.key(20), step), stream)
  added = np.array([[jax.random.uniform(key(4 + i, s), (), "float32") for i in (2, 3)] for s in range(3)]).sum(axis=1)
  np.testing.assert_allclose((once[:, 1] - once[:, 0])[:, 0, 0, 0, 0, 0].real, added, rtol=1e-5)
  for trajectories, kept in ((16, 8), (30, 15), (46, 23)):
    store = _chain(run, trajectories)
    found = chains.series(store, "u")
    np.testing.assert_array_equal(found, once[:, :kept])
    assert chains.steps(store, "plaquette").shape == (3, trajectories)
  # Whole parts as at first, and the rest of each growth.
  assert [n // 3 for n in store.part_lengths("u")] == [2, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2]
  sorted(store.path.glob("*.h5"))[-1].unlink()
  np.testing.assert_array_equal(chains.series(_chain(run, 46), "u"), once)
  with pytest.raises(ValueError, match=r"hmc.trajectories = 30, but .*random has 46 already: ask for at least as many"):
    _chain(run, 30)


def test_the_cost_of_unequal_parts_is_by_the_row(tmp_path):
  store = ensembles.Ensemble.create(tmp_path / "e", {})
  for rows, seconds in ((4, 30.0), (4, 2.0), (1, 0.5), (2, 1.0)):
    store.append({"x": np.zeros(rows)}, {"cpu_seconds": seconds})
  assert costs.of(store) == pytest.approx((33.5, 11 * 0.5))
  assert costs.total(costs.of(store), costs.Cost(1.0, 0.5)) == pytest.approx((34.5, 6.0))


def _samples(run, num, num_draws, batch=4):
  model = marginal.make(priors.haar(1, (4, 4), run.dtype), _SAME)

  def make(count, first):
    def estimate(params, u, key):
      one = lambda i: params + jax.random.normal(jax.random.fold_in(key, i), (), u.real.dtype)
      log_draws = jax.vmap(one)(first + jnp.arange(count))
      return joint.Determinant(weights.log_mean_weight(log_draws), log_draws)

    return estimate

  theory = dataclasses.replace(SMOKE.theory, num_flavours=0)
  plan = Sampling(num_samples=num, batch=batch, chunk=2)
  return sample.fill(run, theory, model, Estimates(num_draws, make), Trained({}, jnp.float32(0.5)), plan)


def test_samples_and_their_draws_grow(tmp_path):
  store = _samples(_run(tmp_path / "once"), 10, 7)
  once = draws.read(store)
  assert not (tmp_path / "once" / "flow-draws").exists()
  np.testing.assert_array_equal(once.log_draws, store.read("log_draws"))
  run = _run(tmp_path / "grown")
  for num, count in ((6, 2), (6, 5), (10, 5), (10, 7)):
    store = _samples(run, num, count)
    np.testing.assert_array_equal(store.read("u"), ensembles.Ensemble.open(tmp_path / "once" / "flow").read("u")[:num])
    found = draws.read(store)
    np.testing.assert_array_equal(found.log_draws, once.log_draws[:num, :count])
  np.testing.assert_allclose(found.log_w, once.log_w, atol=2e-6)
  (more,) = draws.cost(store)
  assert more.total > 0
  # A kill costs a part; until it is there again, all samples have the draws that each of them has.
  sorted((tmp_path / "grown" / "flow-draws").glob("*.h5"))[-1].unlink()
  assert draws.read(store).log_draws.shape == (10, 5)
  np.testing.assert_array_equal(draws.read(_samples(run, 10, 7)).log_draws, once.log_draws)
  for num, count, words in ((8, 7, "sampling.num_samples = 8, but .*flow has 10"), (10, 6, "draws = 6, but .* has 7")):
    with pytest.raises(ValueError, match=words):
      _samples(run, num, count)


def test_weights_from_all_draws_have_these_in_the_place_of_the_determinant(tmp_path):
  rng = np.random.default_rng(0)
  log_w, log_det, log_draws, more = (rng.normal(size=shape) for shape in (3, 3, (3, 2), (3, 4)))
  store = ensembles.Ensemble.create(tmp_path / "flow", {})
  columns = {"log_w": log_w, "log_det": log_det, "log_draws": log_draws, "log_w_joint": np.zeros(3)}
  store.append(columns, {"cpu_seconds": 1.0})
  ensembles.Ensemble.create(tmp_path / "flow-draws", {}).append(
    {"log_draw": more.ravel()}, {"sample": 0, "samples": 3, "draw": 2, "cpu_seconds": 1.0}
  )
  found = draws.read(store)
  np.testing.assert_array_equal(found.log_draws, np.hstack([log_draws, more]))
  mean = np.exp(found.log_draws).mean(axis=1)
  np.testing.assert_allclose(found.log_w, log_w - log_det + np.log(mean), rtol=1e-12)


def test_draws_stay_those_of_their_samples_after_a_repair(tmp_path):
  run = _run(tmp_path / "run")
  store = _samples(run, 8, 3)
  _samples(run, 8, 5)
  before = draws.read(store)
  store.cut(1)
  assert len(draws.read(store).log_w) == 4
  # In parts of another length the same samples come again.
  again = draws.read(_samples(run, 8, 5, batch=3))
  np.testing.assert_array_equal(again.log_draws, before.log_draws)


def _trained(folder, steps):
  def step(state, batch):
    params = state.params * 1.5 + state.step
    return state._replace(params=params, step=state.step + 1), loop.Metrics(np.zeros(batch), 1.0, True)

  key, zero = jax.random.key_data(jax.random.key(0)), jnp.zeros((), jnp.int32)
  start = loop.State(zero, key, jnp.ones(2), (), zero, jnp.zeros(()))
  phases = (fitting.Phase(3, 2), fitting.Phase(steps, 4))
  task = fitting.Task("training", "checkpoints", "training.num_steps", step, phases, lambda p: np.zeros(3), 2, 2, 3, 5)
  folder.mkdir(exist_ok=True)
  return fitting.run(task, folder, start)


def test_training_grows(tmp_path):
  once = _trained(tmp_path / "once", 9)
  grown = [_trained(tmp_path / "grown", steps) for steps in (5, 9)]
  np.testing.assert_array_equal(grown[1], once)
  assert (grown[0] < once).all()
  rows = [metrics.read(tmp_path / name / "training.jsonl") for name in ("once", "grown")]
  for name in ("step", "loss", "exact_loss"):
    assert set(rows[0][name][~np.isnan(rows[0][name])]) <= set(rows[1][name])
  with pytest.raises(ValueError, match=r"training.num_steps = 7, but .*checkpoints has 9 already"):
    _trained(tmp_path / "grown", 7)
