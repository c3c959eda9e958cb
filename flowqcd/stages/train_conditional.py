"""Training of the conditional model, the marginal one fixed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from flowqcd import distributed
from flowqcd.models import conditional, joint, marginal
from flowqcd.runs import conditionals, marginals, session, theories
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field
from flowqcd.stages import fitting
from flowqcd.training import loop, objectives, optimizer
from flowqcd.types import Array, Key, Params


@dataclasses.dataclass(frozen=True)
class ConditionalTraining:
  """Reverse-KL training of the conditional model, the marginal one fixed, in phases that follow each other.

  Optimiser settings are those of `optimizer` but for the rate.
  """

  steps: tuple[int, ...] = field((0,), "Steps of each phase; 0 uses the model as it starts.")
  batches: tuple[int, ...] = field(
    (32,), "Batch of each phase, over all devices: gauge fields, each with `draws` draws."
  )
  start_from: str = field("", "As training.start_from, of the conditional model.")
  draws: int = field(1, "Draws for each gauge field, which share the networks' context.")
  path_gradient: bool = field(False, "Leave out the score term of the gradient.")
  rates: tuple[float, ...] = field((1e-3,), "Adam's rate in each phase.")
  chunk: int = field(8, "Samples vectorised at once on a device; gradients of chunks are accumulated.")
  precision: str = field("single", "Working precision of training: single or double.")
  mu0: float = field(1e-5, "Regulator of the action in training.")
  evaluate_every: int = field(50, "Steps between evaluations.")
  num_evaluate: int = field(64, "Configurations of an evaluation, each with conditional.draws draws.")
  checkpoint_every: int = field(50, "Steps between checkpoints.")
  keep: int = field(3, "Checkpoints kept.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    if not len(self.steps) == len(self.batches) == len(self.rates) > 0:
      raise ValueError(
        "conditional_training.steps, batches and rates need one entry for each phase, not "
        f"{self.steps}, {self.batches} and {self.rates}"
      )
    if min(self.steps) < 0 or min(self.batches) < 1 or min(self.rates) <= 0:
      raise ValueError("conditional_training.steps must not be negative, batches at least 1, rates positive")
    if self.precision not in ("single", "double"):
      raise ValueError(f"conditional_training.precision must be single or double, not '{self.precision}'")
    if min(self.draws, self.chunk, self.evaluate_every, self.num_evaluate, self.checkpoint_every, self.keep) < 1:
      raise ValueError(
        "conditional_training.draws, chunk, evaluate_every, num_evaluate, checkpoint_every, keep: at least 1"
      )


class Trained(NamedTuple):
  """Parameters of the marginal model and of the conditional one; () where there is none."""

  marginal: Params
  conditional: Params


Propose = Callable[[Params, Key], objectives.Proposal]
"""(parameters of the marginal model, key) -> its links and their part of the weight."""


def train(
  run: Run,
  theory: Theory,
  links: marginals.Choice,
  fixed: Params,
  choice: Conditional,
  training: ConditionalTraining,
  adam: optimizer.Config,
  limits: fitting.Limits,
) -> Params:
  """Train, or go on training, on links of the marginal model with the parameters `fixed`.

  Where no phase has a step, the parameters are those that the model starts with. Raises ValueError where checkpoints are
  not of this model, Diverged where training cannot go on.
  """
  for batch in training.batches:
    distributed.check_divisible(batch, "conditional_training.batches")
  model = _in_training(theory, choice, training)
  state, transformation = prepare(run.seed, model, training, adam)
  if not sum(training.steps):
    return state.params
  dtype = session.dtype(training.precision)
  rounded = session.in_precision(fixed, dtype)
  propose = proposals(theory, marginals.model(links, theory, dtype))
  terms = objectives.conditional_kl(propose, model, training.draws, training.path_gradient)
  ends = itertools.accumulate(training.steps)
  task = fitting.Task(
    name="conditional",
    folder="conditional_checkpoints",
    setting="conditional_training.steps",
    step=loop.make_step(terms, transformation, training.chunk, limits.max_growth, fixed=(rounded,)),
    phases=tuple(fitting.Phase(end, batch) for end, batch in zip(ends, training.batches)),
    evaluate=_evaluation(run.key(10), theory, choice, training, propose, rounded),
    evaluate_every=training.evaluate_every,
    checkpoint_every=training.checkpoint_every,
    keep=training.keep,
    max_bad_steps=limits.max_bad_steps,
  )
  return fitting.run(task, run.folder, state)


def _in_training(theory: Theory, choice: Conditional, training: ConditionalTraining) -> conditional.Conditional:
  """The model in training precision, with the regulated action."""
  return conditionals.model(choice, theory, training.precision, training.mu0)


def prepare(
  seed: int, model: conditional.Conditional, training: ConditionalTraining, adam: optimizer.Config
) -> tuple[loop.State, optimizer.Transformation]:
  """The state before the first step, in training precision, and the optimiser with the phases' rates."""
  root = jax.random.key(seed)
  params = session.in_precision(jax.jit(model.init)(jax.random.fold_in(root, 8)), session.dtype(training.precision))
  transformation = optimizer.make(adam, optimizer.stairs(training.steps, training.rates))
  state = loop.initial_state(jax.random.fold_in(root, 9), params, transformation)
  if training.start_from:
    state = state._replace(params=fitting.starting(training.start_from, "conditional_checkpoints", state))
  return state, transformation


def proposals(theory: Theory, model: marginal.Marginal) -> Propose:
  """Links of the marginal model for the conditional one."""

  def propose(params: Params, key: Key) -> objectives.Proposal:
    sample = model.sample(params, key)
    return objectives.Proposal(sample.u, -theories.gauge_value(theory, sample.u) - sample.log_q)

  return propose


def _evaluation(
  root: Key, theory: Theory, choice: Conditional, training: ConditionalTraining, propose: Propose, fixed: Params
) -> Callable[[Params], np.ndarray]:
  """params -> log weights of the joint model without regulator, always on the same random numbers."""
  determinant = joint.log_determinant(
    conditionals.model(choice, theory, training.precision), choice.draws, choice.chunk
  )

  def one(fixed: Params, params: Params, key: Key) -> Array:
    first, second = jax.random.split(key)
    proposal = propose(fixed, first)
    return proposal.log_w + determinant(params, proposal.u, second).log_mean

  mapped = distributed.parallel_map(one, 1, num_shared=2)
  keys = distributed.item_keys(root, 0, 0, training.num_evaluate)
  return lambda params: np.asarray(mapped(fixed, params, keys))
