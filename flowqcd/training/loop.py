"""The training loop as a stream of states: whoever consumes it writes files and shows progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from flowqcd import distributed
from flowqcd.types import Array, Key, Params


class State(NamedTuple):
  """All that training needs to go on: steps done, key, parameters, optimiser state, steps skipped so far."""

  step: Array
  key: Array
  params: Params
  opt_state: Any
  skipped: Array


class Metrics(NamedTuple):
  """Of one step. log_w: of the batch, as the objective logs it. gradient_norm: before clipping. finite: the step was
  taken."""

  log_w: Array
  gradient_norm: Array
  finite: Array


class Diverged(ArithmeticError):
  """Too many steps in a row gave no finite gradient."""


def initial_state(key: Key, params: Params, optimizer: optax.GradientTransformation) -> State:
  """State before the first step. The key is stored as raw data, as checkpoints need it."""
  zero = jnp.zeros((), jnp.int32)
  return State(zero, jax.random.key_data(key), params, optimizer.init(params), zero)


def make_update(optimizer: optax.GradientTransformation) -> Callable[..., tuple[State, Array, Array]]:
  """(state, gradient) -> the next state, the gradient's norm, and whether it was finite.

  A step with a gradient that is not finite changes nothing but the counters.
  """

  @jax.jit
  def update(state: State, gradient: Params) -> tuple[State, Array, Array]:
    norm = jnp.sqrt(sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(gradient)))
    finite = jnp.isfinite(norm)
    changes, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    new = State(
      state.step + 1,
      state.key,
      keep(params, state.params),
      keep(opt_state, state.opt_state),
      state.skipped + jnp.where(finite, 0, 1).astype(state.skipped.dtype),
    )
    return new, norm, finite

  return update


def train(
  state: State,
  gradient: Callable[[Params, Key], tuple[Params, Any]],
  optimizer: optax.GradientTransformation,
  num_steps: int,
  batch: int,
  chunk: int,
  max_bad_steps: int = 20,
) -> Iterator[tuple[State, Metrics]]:
  """Yield (state, metrics) after every step until state.step reaches num_steps.

  gradient: as of objectives.reverse_kl, for one sample. Sample i of step s has the key fold_in(fold_in(key, s), i), so a
  resumed run repeats an uninterrupted one bit for bit, on any number of devices up to rounding. Raises ValueError if
  devices do not divide the batch, Diverged after max_bad_steps non-finite gradients in a row.
  """
  distributed.check_divisible(batch, "batch")
  mean_gradient = distributed.data_parallel(gradient, chunk)
  update = make_update(optimizer)
  key = jax.random.wrap_key_data(state.key)
  local = batch // jax.process_count()
  bad = 0
  while int(state.step) < num_steps:
    keys = distributed.item_keys(key, state.step, jax.process_index() * local, local)
    mean, outcome = mean_gradient(state.params, keys)
    state, norm, finite = update(state, mean)
    bad = 0 if bool(finite) else bad + 1
    if bad > max_bad_steps:
      raise Diverged(
        f"{bad} steps in a row up to step {int(state.step)} had no finite gradient; the last good checkpoint is kept"
      )
    yield state, Metrics(outcome.log_w, norm, finite)
