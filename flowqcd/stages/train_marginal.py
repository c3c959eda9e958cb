"""Train the marginal flow by reverse KL: `python -m experiments.train_marginal --config.training.num_steps=...`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed
from flowqcd.flows import family
from flowqcd.models import marginal, zoo
from flowqcd.runs import environment, settings, systems
from flowqcd.stages import fitting
from flowqcd.theory import gauge
from flowqcd.training import loop, natural, objectives, optimizer
from flowqcd.types import Params


def run(config: settings.Experiment) -> Params:
  """Train, or go on training, and return the parameters.

  Where num_steps is 0 they are those of `start_from`, or the initial ones: analytic for the trivializing flow. On several
  hosts every process trains on its share of the batch, and the first one writes. Raises ValueError where checkpoints are
  not of this model, Diverged where training cannot go on.
  """
  environment.start(config, several_hosts=True)
  folder, training = environment.claim(config), config.training
  setup = prepare(config)
  kept = zoo.rounded if training.round else lambda params: params
  if not training.num_steps:
    return kept(setup.state.params)
  task = fitting.Task(
    name="training",
    folder="checkpoints",
    step=_step(config, setup),
    phases=(fitting.Phase(training.num_steps, training.batch),),
    evaluate=_evaluation(config, setup.model),
    evaluate_every=training.evaluate_every,
    checkpoint_every=training.checkpoint_every,
    keep=training.keep,
    max_bad_steps=training.max_bad_steps,
  )
  return kept(fitting.run(task, folder, setup.state))


class Setup(NamedTuple):
  """The model in training precision, its optimiser, and the state before the first step."""

  model: marginal.Marginal
  transformation: optimizer.Transformation
  state: loop.State


def prepare(config: settings.Experiment) -> Setup:
  """The model in training precision, its optimiser, and the state before the first step."""
  dtype = systems.dtype(config.training.precision)
  model, root = systems.marginal_model(config, dtype), jax.random.key(config.seed)
  params = systems.in_precision(jax.jit(model.init)(jax.random.fold_in(root, 0)), dtype)
  transformation = optimizer.make(config.optimizer)
  state = loop.initial_state(jax.random.fold_in(root, 1), params, transformation)
  if config.training.start_from:
    state = state._replace(params=fitting.starting(config.training.start_from, "checkpoints", state))
  return Setup(model, transformation, state)


def _step(config: settings.Experiment, setup: Setup) -> Callable[[loop.State, int], tuple[loop.State, loop.Metrics]]:
  training, plan = config.training, config.family
  if plan.betas:
    at = systems.family_at(config, systems.dtype(training.precision))
    real = jnp.finfo(systems.dtype(training.precision)).dtype
    pairs = zip(plan.betas, plan.kappas or [0.0] * len(plan.betas))
    couplings = [family.Couplings(*(jnp.asarray(x, real) for x in pair)) for pair in pairs]
    return natural.make_family_step(at, couplings, config.natural, training.chunk)
  target = systems.training_target(config)
  if training.method == "natural":
    return natural.make_step(setup.model, target, config.natural, training.chunk)
  if training.loss == "variance":
    terms, zeros, finish = (
      objectives.variance(setup.model, target),
      objectives.variance_zeros,
      objectives.variance_gradient,
    )
    return loop.make_step(terms, setup.transformation, training.chunk, training.max_growth, zeros=zeros, finish=finish)
  gradient = objectives.reverse_kl(setup.model, target, training.path_gradient)
  return loop.make_step(gradient, setup.transformation, training.chunk, training.max_growth)


def _evaluation(config: settings.Experiment, model: marginal.Marginal) -> Callable[[Params], np.ndarray]:
  """params -> log weights with the exact determinant, always on the same random numbers."""

  def one(params: Params, key: jax.Array) -> jax.Array:
    sample = model.sample(params, key)
    action = gauge.wilson(sample.u, config.theory.beta)
    return systems.log_det(config.theory, sample.u) - action - sample.log_q

  mapped = distributed.parallel_map(one, config.training.chunk, num_shared=1)
  key = jax.random.fold_in(jax.random.key(config.seed), 2)
  keys = distributed.item_keys(key, 0, 0, config.training.num_evaluate)
  return lambda params: np.asarray(mapped(params, keys))
