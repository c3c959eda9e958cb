"""Train the conditional model with the marginal one fixed, after that one: `python -m experiments.train_conditional`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from flowqcd import distributed
from flowqcd.models import joint, marginal
from flowqcd.runs import environment, settings, systems
from flowqcd.stages import fitting, train_marginal
from flowqcd.theory import gauge
from flowqcd.training import loop, objectives, optimizer
from flowqcd.types import Array, Key, Params


class Trained(NamedTuple):
  """Parameters of the marginal model and of the conditional one; () where there is none."""

  marginal: Params
  conditional: Params


def run(config: settings.Experiment) -> Trained:
  """Train the marginal model, then the conditional one, or go on where either stands.

  Where no phase has a step, the conditional model is the one that it starts with. Raises as train_marginal does.
  """
  fixed = train_marginal.run(config)
  if not config.is_joint:
    return Trained(fixed, ())
  folder, training = environment.claim(config), config.conditional_training
  for batch in training.batches:
    distributed.check_divisible(batch, "conditional_training.batches")
  state, transformation = prepare(config)
  if not sum(training.steps):
    return Trained(fixed, state.params)
  dtype = systems.dtype(training.precision)
  rounded = systems.in_precision(fixed, dtype)
  propose = proposals(config, systems.marginal_model(config, dtype))
  model = systems.conditional_model(config, training.precision, training.mu0)
  gradient = objectives.conditional_kl(propose, model, training.draws, training.path_gradient)
  ends = itertools.accumulate(training.steps)
  task = fitting.Task(
    name="conditional",
    folder="conditional_checkpoints",
    step=loop.make_step(gradient, transformation, training.chunk, config.training.max_growth, fixed=(rounded,)),
    phases=tuple(fitting.Phase(end, batch) for end, batch in zip(ends, training.batches)),
    evaluate=_evaluation(config, propose, rounded),
    evaluate_every=training.evaluate_every,
    checkpoint_every=training.checkpoint_every,
    keep=training.keep,
    max_bad_steps=config.training.max_bad_steps,
  )
  return Trained(fixed, fitting.run(task, folder, state))


def prepare(config: settings.Experiment) -> tuple[loop.State, optimizer.Transformation]:
  """The state before the first step, in training precision, and the optimiser with the phases' rates."""
  training, root = config.conditional_training, jax.random.key(config.seed)
  init = jax.jit(systems.conditional_model(config, training.precision, training.mu0).init)
  params = systems.in_precision(init(jax.random.fold_in(root, 8)), systems.dtype(training.precision))
  transformation = optimizer.make(config.optimizer, optimizer.stairs(training.steps, training.rates))
  state = loop.initial_state(jax.random.fold_in(root, 9), params, transformation)
  if training.start_from:
    state = state._replace(params=fitting.starting(training.start_from, "conditional_checkpoints", state))
  return state, transformation


def proposals(config: settings.Experiment, model: marginal.Marginal) -> Callable[[Params, Key], objectives.Proposal]:
  """(parameters of the marginal model, key) -> its links and their part of the weight."""

  def propose(params: Params, key: Key) -> objectives.Proposal:
    sample = model.sample(params, key)
    return objectives.Proposal(sample.u, -gauge.wilson(sample.u, config.theory.beta) - sample.log_q)

  return propose


def _evaluation(
  config: settings.Experiment, propose: Callable[[Params, Key], objectives.Proposal], fixed: Params
) -> Callable[[Params], np.ndarray]:
  """params -> log weights of the joint model without regulator, always on the same random numbers."""
  choice = config.conditional
  determinant = joint.log_determinant(
    systems.conditional_model(config, config.conditional_training.precision), choice.draws, choice.chunk
  )

  def one(fixed: Params, params: Params, key: Key) -> Array:
    first, second = jax.random.split(key)
    proposal = propose(fixed, first)
    return proposal.log_w + determinant(params, proposal.u, second).log_mean

  mapped = distributed.parallel_map(one, 1, num_shared=2)
  key = jax.random.fold_in(jax.random.key(config.seed), 10)
  keys = distributed.item_keys(key, 0, 0, config.conditional_training.num_evaluate)
  return lambda params: np.asarray(mapped(fixed, params, keys))
