"""Training of the marginal flow by reverse KL."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed
from flowqcd.flows import family
from flowqcd.models import marginal, zoo
from flowqcd.runs import marginals, session, theories
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.stages import fitting, targets
from flowqcd.stages.training import Training
from flowqcd.training import loop, natural, objectives, optimizer
from flowqcd.types import Params


class Steps(NamedTuple):
  """Settings of a step: by the optimiser, or by natural gradient."""

  optimizer: optimizer.Config
  natural: natural.Config


def train(run: Run, theory: Theory, links: marginals.Choice, training: Training, steps: Steps) -> Params:
  """Train, or go on training, and return the parameters.

  Where num_steps is 0 they are those of `start_from`, or the initial ones: analytic for the trivializing flow. On several
  hosts every process trains on its share of the batch, and the first one writes. Raises ValueError where checkpoints are
  not of this model, Diverged where training cannot go on.
  """
  setup = prepare(run.seed, theory, links, training, steps.optimizer)
  kept = zoo.rounded if training.round else lambda params: params
  if not training.num_steps:
    return kept(setup.state.params)
  task = fitting.Task(
    name="training",
    folder="checkpoints",
    setting="training.num_steps",
    step=_step(theory, links, training, steps.natural, setup),
    phases=(fitting.Phase(training.num_steps, training.batch),),
    evaluate=_evaluation(run, theory, setup.model, training),
    evaluate_every=training.evaluate_every,
    checkpoint_every=training.checkpoint_every,
    keep=training.keep,
    max_bad_steps=training.max_bad_steps,
  )
  return kept(fitting.run(task, run.folder, setup.state))


class Setup(NamedTuple):
  """The model in training precision, its optimiser, and the state before the first step."""

  model: marginal.Marginal
  transformation: optimizer.Transformation
  state: loop.State


def prepare(seed: int, theory: Theory, links: marginals.Choice, training: Training, adam: optimizer.Config) -> Setup:
  """The model in training precision, its optimiser, and the state before the first step."""
  dtype = session.dtype(training.precision)
  model, root = marginals.model(links, theory, dtype), jax.random.key(seed)
  params = session.in_precision(jax.jit(model.init)(jax.random.fold_in(root, 0)), dtype)
  transformation = optimizer.make(adam)
  state = loop.initial_state(jax.random.fold_in(root, 1), params, transformation)
  if training.start_from:
    state = state._replace(params=fitting.starting(training.start_from, "checkpoints", state))
  return Setup(model, transformation, state)


def _step(
  theory: Theory, links: marginals.Choice, training: Training, metric: natural.Config, setup: Setup
) -> Callable[[loop.State, int], tuple[loop.State, loop.Metrics]]:
  if links.family.betas:
    return _family_step(theory, links, training, metric)
  target = targets.target(theory, training)
  if training.method == "natural":
    return natural.make_step(setup.model, target, metric, training.chunk)
  if training.loss == "variance":
    terms = objectives.variance(setup.model, target)
    ends = {"zeros": objectives.variance_zeros, "finish": objectives.variance_gradient}
    return loop.make_step(terms, setup.transformation, training.chunk, training.max_growth, **ends)
  terms = objectives.reverse_kl(setup.model, target, training.path_gradient)
  return loop.make_step(terms, setup.transformation, training.chunk, training.max_growth)


def _family_step(
  theory: Theory, links: marginals.Choice, training: Training, metric: natural.Config
) -> Callable[[loop.State, int], tuple[loop.State, loop.Metrics]]:
  dtype = session.dtype(training.precision)
  at = targets.family_at(theory, links, training.determinant, dtype)
  real = jnp.finfo(dtype).dtype
  couplings = [family.Couplings(*(jnp.asarray(x, real) for x in pair)) for pair in links.family.couplings]
  return natural.make_family_step(at, couplings, metric, training.chunk)


def _evaluation(
  run: Run, theory: Theory, model: marginal.Marginal, training: Training
) -> Callable[[Params], np.ndarray]:
  """params -> log weights with the exact determinant, always on the same random numbers."""

  def one(params: Params, key: jax.Array) -> jax.Array:
    sample = model.sample(params, key)
    return theories.log_det(theory, sample.u) - theories.gauge_value(theory, sample.u) - sample.log_q

  mapped = distributed.parallel_map(one, training.chunk, num_shared=1)
  keys = distributed.item_keys(run.key(2), 0, 0, training.num_evaluate)
  return lambda params: np.asarray(mapped(params, keys))
