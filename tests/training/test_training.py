import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flowqcd import presets
from flowqcd.analysis import weights
from flowqcd.flows import trivializing
from flowqcd.io import checkpoint
from flowqcd.models import marginal, priors
from flowqcd.runs import marginals, tree
from flowqcd.theory import gauge
from flowqcd.training import loop, objectives, optimizer

BETA, LATTICE = 2.0, (4, 4)


def _model(beta=BETA, nc=2, steps=1, lattice=LATTICE):
  target = trivializing.pure_gauge(beta, len(lattice))
  flow = trivializing.make(trivializing.Config(steps=steps), target, nc, lattice)
  return marginal.make(priors.haar(nc, lattice, jnp.complex128), flow)


def _target(beta=BETA):
  return objectives.Target(lambda key, u: gauge.wilson(u, beta), lambda u: gauge.wilson(u, beta))


def _setup(path=False):
  model = _model(beta=1.5)
  gradient = objectives.reverse_kl(model, _target(), path)
  transformation = optimizer.make(optimizer.Config(learning_rate=0.05))
  params = model.init(jax.random.key(0))
  return model, gradient, transformation, loop.initial_state(jax.random.key(1), params, transformation)


def test_reverse_kl_is_the_gradient_of_the_loss():
  """Against finite differences of the mean of log q + S over fixed random numbers."""
  model, gradient, _, state = _setup()
  keys = jax.random.split(jax.random.key(2), 8)
  direction = jax.random.normal(jax.random.key(3), state.params["deviation"].shape)

  def loss(e):
    params = {"deviation": state.params["deviation"] + e * direction}

    def one(key):
      sample = model.sample(params, jax.random.split(key)[0])
      return sample.log_q + gauge.wilson(sample.u, BETA)

    return jnp.mean(jax.vmap(one)(keys))

  loss = jax.jit(loss)
  found = jax.jit(gradient)(state.params, keys)[0]["deviation"] / 8
  slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
  assert float(jnp.sum(found * direction)) == pytest.approx(float(slope), rel=1e-6)


def test_path_gradient_has_the_same_mean_and_vanishes_at_the_optimum():
  model, _, _, state = _setup()
  keys = jax.random.split(jax.random.key(4), 1024)
  both = {}
  for path in (False, True):
    gradient = objectives.reverse_kl(model, _target(), path)
    run = jax.jit(lambda k, g=gradient: jax.lax.map(lambda key: g(state.params, key[None])[0], k, batch_size=64))
    both[path] = np.asarray(run(keys)["deviation"]).reshape(len(keys), -1)
  error = np.hypot(*(x.std(axis=0) / 32 for x in both.values())) + 1e-9
  # Integration error in the score term allows a little more than noise.
  difference = np.abs(both[True].mean(axis=0) - both[False].mean(axis=0))
  assert (difference < 4.5 * error + 1e-3 * np.abs(both[False].mean(axis=0)) + 1e-3).all()
  # beta = 0: the flow is exact where its coefficients vanish, and the path gradient then has no noise.
  model = _model(beta=0.0)
  gradient = objectives.reverse_kl(model, _target(0.0), path=True)
  exact = jax.jit(jax.vmap(gradient, (None, 0)))(model.init(None), keys[:16, None])[0]["deviation"]
  assert np.abs(exact).max() < 1e-8


def test_variance_gradient_is_that_of_the_variance_of_log_w():
  """Against differences, over samples that stay where they are."""
  model, _, _, state = _setup()
  keys = jax.random.split(jax.random.key(2), 16)
  direction = jax.random.normal(jax.random.key(3), state.params["deviation"].shape)
  u = jax.vmap(model.sample, (None, 0))(state.params, keys).u
  action = jax.vmap(_target().value)(u)

  @jax.jit
  def loss(e):
    params = {"deviation": state.params["deviation"] + e * direction}
    return 0.5 * jnp.var(-action - jax.vmap(model.log_prob, (None, 0))(params, u))

  terms = jax.jit(objectives.variance(model, _target()))(state.params, keys)[0]
  found = objectives.variance_gradient(jax.tree.map(lambda x: x / len(keys), terms))["deviation"]
  step = 1e-3
  difference = (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)
  # log q by the inverse differs from the sample's by the step error.
  np.testing.assert_allclose(jnp.sum(found * direction), difference, rtol=1e-2)
  assert abs(difference) > 0.1


def test_training_by_the_variance_improves_the_flow():
  model, _, transformation, state = _setup()
  step = loop.make_step(
    objectives.variance(model, _target()),
    transformation,
    8,
    zeros=objectives.variance_zeros,
    finish=objectives.variance_gradient,
  )
  spreads = [float(np.std(result.log_w)) for _, result in loop.train(state, step, 40, 64)]
  assert np.mean(spreads[-5:]) < 0.75 * np.mean(spreads[:3]), spreads


# The score term's noise keeps the plain gradient from the optimum at this learning rate.
@pytest.mark.parametrize("path, least", [(False, 0.68), (True, 0.8)])
def test_training_improves_the_flow(path, least):
  model, gradient, transformation, state = _setup(path)

  def ess(params):
    def log_w(key):
      sample = model.sample(params, key)
      return -gauge.wilson(sample.u, BETA) - sample.log_q

    return float(weights.ess(jax.jit(jax.vmap(log_w))(jax.random.split(jax.random.key(5), 512))))

  before = ess(state.params)
  for state, result in loop.train(state, loop.make_step(gradient, transformation, 8), 60, 32):
    assert bool(result.taken) and result.log_w.shape == (32,)
  assert int(state.step) == 60 and int(state.skipped) == 0
  after = ess(state.params)
  assert after > before + 0.05 and after > least, (before, after)


def test_resumed_training_repeats_bit_for_bit():
  _, gradient, transformation, state = _setup()
  straight = [s for s, _ in loop.train(state, loop.make_step(gradient, transformation, 2), 6, 8)]
  resumed = [s for s, _ in loop.train(straight[2], loop.make_step(gradient, transformation, 2), 6, 8)]
  jax.tree.map(np.testing.assert_array_equal, resumed[-1], straight[-1])


def test_bad_steps_are_skipped_and_counted_and_end_it_when_there_are_too_many():
  params = {"w": jnp.ones(2)}
  transformation = optax.sgd(0.1)

  def sometimes(params, key):
    bad = jax.random.uniform(key) < 0.3
    return {"w": jnp.where(bad, jnp.nan, params["w"])}, objectives.Outcome(jnp.zeros(()))

  sometimes = objectives.of_samples(sometimes)
  state = loop.initial_state(jax.random.key(0), params, transformation)
  for state, _ in loop.train(state, loop.make_step(sometimes, transformation, 1), 30, 4):
    assert np.isfinite(state.params["w"]).all()
  assert 0 < int(state.skipped) < 30 and float(state.params["w"][0]) < 1

  always = lambda params, keys: ({"w": jnp.full(2, jnp.nan)}, objectives.Outcome(jnp.zeros(len(keys))))
  state = loop.initial_state(jax.random.key(0), params, transformation)
  with pytest.raises(loop.Diverged, match="no finite gradient"):
    for state, _ in loop.train(state, loop.make_step(always, transformation, 1), 100, 4, max_bad_steps=5):
      pass
  np.testing.assert_array_equal(state.params["w"], 1)


def test_steps_far_larger_than_usual_are_skipped():
  params, transformation = {"w": jnp.ones(2)}, optax.sgd(1e-3)
  update = loop.make_update(transformation, max_growth=10.0)
  state = loop.initial_state(jax.random.key(0), params, transformation)
  taken = []
  for size in [1.0] * 60 + [5.0, 1e3, 1.0] + [1e3] * 80:
    state, norm, ok = update(state, {"w": jnp.array([size, 0.0])})
    assert float(norm) == size
    taken.append(bool(ok))
  # A single outlier is left out; a lasting change is followed in the end.
  assert all(taken[:61]) and not taken[61] and taken[62] and not taken[63] and taken[-1]
  assert int(state.skipped) == taken.count(False) < 60


def test_optimizer_clips_and_decays():
  config = optimizer.Config(learning_rate=1.0, decay=0.5, decay_steps=2, epsilon=1e-8)
  transformation = optimizer.make(config)
  params = {"w": jnp.zeros(3)}
  state, sizes = transformation.init(params), []
  for _ in range(5):
    updates, state = transformation.update({"w": jnp.array([1e6, -1e6, 0.0])}, state, params)
    sizes.append(float(-updates["w"][0]))
  np.testing.assert_allclose(sizes, [1, 1, 0.5, 0.5, 0.25], rtol=1e-5)
  for name in ("learning_rate", "epsilon", "max_norm", "beta1", "beta2"):
    with pytest.raises(ValueError, match=name):
      optimizer.Config(**{name: 0.0})
  with pytest.raises(ValueError, match="warmup"):
    optimizer.Config(warmup=-1)


def test_optimizer_warms_up_and_forgets_large_gradients():
  """The rate rises over `warmup` steps; the second gradient moves as Adam's formula says."""
  rising = optimizer.make(optimizer.Config(learning_rate=1.0, epsilon=1e-8, warmup=4))
  params = {"w": jnp.zeros(1)}
  state, sizes = rising.init(params), []
  for _ in range(6):
    updates, state = rising.update({"w": jnp.ones(1)}, state, params)
    sizes.append(float(-updates["w"][0]))
  np.testing.assert_allclose(sizes, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-5)
  config = optimizer.Config(learning_rate=1.0, epsilon=1e-12, max_norm=1e3, max_value=1e2, beta1=0.8, beta2=0.5)
  forgetful = optimizer.make(config)
  state = forgetful.init(params)
  for gradient in (10.0, 0.1):
    updates, state = forgetful.update({"w": jnp.full(1, gradient)}, state, params)
  mean = (0.8 * 0.2 * 10.0 + 0.2 * 0.1) / (1 - 0.8**2)
  square = (0.5 * 50 + 0.5 * 0.01) / (1 - 0.5**2)
  assert -float(updates["w"][0]) == pytest.approx(mean / square**0.5, rel=1e-5)


def test_muon_moves_all_directions_of_a_kernel_alike():
  """Singular values of a kernel's first step are the rate's, for gradients of any size; biases move as Adam says."""
  config = optimizer.Config(
    method="muon", learning_rate=1e-3, kernel_rate=0.02, epsilon=1e-12, max_value=1e3, max_norm=1e6
  )
  transformation = optimizer.make(config)
  rng = np.random.default_rng(0)
  params = {"w": jnp.zeros((2, 3, 4, 5)), "b": jnp.zeros((2, 5))}
  sizes = np.array([1.0, 1e-9])[:, None]  # Layers near the end of a chain, and near its start.
  gradient = {"w": rng.normal(size=(2, 3, 4, 5)) * sizes[..., None, None], "b": rng.normal(size=(2, 5)) * sizes}
  updates, _ = transformation.update(jax.tree.map(jnp.asarray, gradient), transformation.init(params), params)
  values = np.linalg.svd(np.asarray(updates["w"]).reshape(2, 12, 5), compute_uv=False)
  assert (0.6 * 0.02 < values).all() and (values < 1.3 * 0.02).all()
  # Nesterov's momentum, as optax has it here: the first step is 1.47 of Adam's.
  np.testing.assert_allclose(np.abs(updates["b"]), 1.47e-3, rtol=1e-2)
  with pytest.raises(ValueError, match="adam or muon, not 'sgd'"):
    optimizer.Config(method="sgd")


_FLAGS = {
  "theory.num_flavours": "0", "training.num_steps": "12", "training.evaluate_every": "100",
  "training.checkpoint_every": "2", "training.batch": "8", "training.chunk": "4",
}  # fmt: skip


def _command(flags, folder):
  words = [f"--config.{name}={value}" for name, value in flags.items()]
  return [sys.executable, "-m", "experiments.train_marginal", "--preset=smoke", *words, f"--config.output={folder}"]


def _final_state(flags, folder):
  config = tree.override(presets.PRESETS["smoke"], flags)
  params = marginals.model(config.links, config.theory, jnp.dtype("complex128")).init(jax.random.key(0))
  params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
  template = loop.initial_state(jax.random.key(0), params, optimizer.make(config.optimizer))
  return checkpoint.Checkpointer(folder / "checkpoints").restore(template)


@pytest.mark.parametrize("marginal, kills", [
  ("trivializing", 2), pytest.param("spectral", 20, marks=pytest.mark.slow),
])  # fmt: skip
def test_killing_the_binary_and_resuming_changes_nothing(tmp_path, marginal, kills):
  """The binary killed at random instants, then run to its end, ends with the parameters of an undisturbed run."""
  root, rng = pathlib.Path(__file__).parents[2], random.Random(1)
  steps = max(12, 3 * kills)
  flags = _FLAGS | {"marginal": marginal, "training.num_steps": str(steps)}
  environment = os.environ | {"PYTHONPATH": str(root)}
  quiet = {"env": environment, "cwd": root, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
  subprocess.run(_command(flags, tmp_path / "a"), check=True, timeout=300, **quiet)
  for kill in range(kills):
    process = subprocess.Popen(_command(flags, tmp_path / "b"), **quiet)
    checkpoints = tmp_path / "b" / "checkpoints"
    before, start = set(checkpoints.glob("[0-9]*")), time.monotonic()
    # Every other kill falls into or just after the writing of a checkpoint, the others anywhere.
    while kill % 2 == 0 and process.poll() is None and time.monotonic() - start < 60:
      if set(checkpoints.glob("[0-9]*")) - before:
        break
      time.sleep(0.01)
    time.sleep(rng.random() * (10 if kill % 2 else 0.05))
    process.send_signal(signal.SIGKILL)
    process.wait()
  subprocess.run(_command(flags, tmp_path / "b"), check=True, timeout=300, **quiet)
  a, b = _final_state(flags, tmp_path / "a"), _final_state(flags, tmp_path / "b")
  assert int(a.step) == int(b.step) == steps
  jax.tree.map(np.testing.assert_array_equal, a, b)
  rows = [len((tmp_path / x / "training.jsonl").read_text().splitlines()) for x in "ab"]
  assert rows == [steps, steps]
