"""The training loop as a stream of states: whoever consumes it writes files and shows progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from flowqcd import distributed
from flowqcd.types import AnyArray, Array, Key, Params


class State(NamedTuple):
  """All that training needs to go on.

  step: steps done. key: raw data. skipped: steps that were left out. norm: running geometric mean of gradient norms, zero
  before the first.
  """

  step: Array
  key: Array
  params: Params
  opt_state: Any
  skipped: Array
  norm: Array


class Metrics(NamedTuple):
  """Of one step. log_w: of the batch, as the objective logs it. gradient_norm: before clipping. taken: the step was not
  skipped. draw_variance: of conditional models, as of objectives.conditional_kl."""

  log_w: AnyArray
  gradient_norm: Array | float
  taken: Array | bool
  draw_variance: Array | None = None


class Diverged(ArithmeticError):
  """Too many steps in a row were skipped."""


_SETTLED = 50
"""Steps before which no gradient is called too large, since the usual size is not known."""
_MEMORY = 0.05
"""Weight of a new step in the running mean of log norms."""


def initial_state(key: Key, params: Params, optimizer: optax.GradientTransformation) -> State:
  """State before the first step. The key is stored as raw data, as checkpoints need it."""
  zero = jnp.zeros((), jnp.int32)
  return State(zero, jax.random.key_data(key), params, jax.jit(optimizer.init)(params), zero, jnp.zeros(()))


def make_update(
  optimizer: optax.GradientTransformation, max_growth: float = 100.0
) -> Callable[..., tuple[State, Array, Array]]:
  """(state, gradient) -> the next state, the gradient's norm, and whether the step was taken.

  A gradient that is not finite, or whose norm is more than max_growth times the usual one, changes nothing but the
  counters. The usual norm follows a lasting change, by at most max_growth^0.05 a step, so that a run is not stuck for ever.
  """

  @jax.jit
  def update(state: State, gradient: Params) -> tuple[State, Array, Array]:
    norm = jnp.sqrt(sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(gradient)))
    usual = jnp.where(state.norm > 0, state.norm, norm)
    growth = norm / jnp.where(usual > 0, usual, 1)
    taken = jnp.isfinite(norm) & ((state.step < _SETTLED) | (growth <= max_growth))
    followed = usual * jnp.clip(growth, 1 / max_growth, max_growth) ** _MEMORY
    changes, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, old)
    new = State(
      state.step + 1,
      state.key,
      keep(params, state.params),
      keep(opt_state, state.opt_state),
      state.skipped + jnp.where(taken, 0, 1).astype(state.skipped.dtype),
      jnp.where(jnp.isfinite(norm), followed, state.norm).astype(state.norm.dtype),
    )
    return new, norm, taken

  return update


def step_keys(state: State, batch: int, first: int = 0) -> Key:
  """This host's keys of a step's batch: sample i of step s has fold_in(fold_in(key, s), i). uint32 [batch/hosts, 2].

  first: the index of the batch's first sample, where a step has several batches. Raises ValueError if devices do not
  divide the batch.
  """
  distributed.check_divisible(batch, "batch")
  local = batch // jax.process_count()
  return distributed.item_keys(
    jax.random.wrap_key_data(state.key), state.step, first + jax.process_index() * local, local
  )


def make_step(
  terms: Callable[..., tuple[Any, Any]],
  optimizer: optax.GradientTransformation,
  chunk: int,
  max_growth: float = 100.0,
  fixed: tuple = (),
  zeros: Callable[[Params], Any] | None = None,
  finish: Callable[[Any], Params] = lambda mean: mean,
) -> Callable[[State, int], tuple[State, Metrics]]:
  """(state, batch) -> the state after a step of that many samples over all hosts, and its metrics.

  terms: objectives.Terms, in general a gradient; fixed: their arguments after the keys. Where they are other terms than a
  gradient, zeros: params -> such terms that are zero, and finish: their mean -> the gradient. With the keys of
  `step_keys` a resumed run repeats an uninterrupted one bit for bit, on any number of devices up to rounding. Raises
  ValueError if devices do not divide the batch.
  """
  mean_terms = distributed.data_parallel(terms, chunk, fixed, **({} if zeros is None else {"zeros": zeros}))
  update = make_update(optimizer, max_growth)

  def step(state: State, batch: int) -> tuple[State, Metrics]:
    mean, outcome = mean_terms(state.params, step_keys(state, batch))
    state, norm, taken = update(state, finish(mean))
    return state, Metrics(outcome.log_w, norm, taken, outcome.draw_variance)

  return step


def train(
  state: State,
  step: Callable[[State, int], tuple[State, Metrics]],
  num_steps: int,
  batch: int,
  max_bad_steps: int = 20,
) -> Iterator[tuple[State, Metrics]]:
  """Yield (state, metrics) after every step, as of make_step, until state.step reaches num_steps.

  Raises ValueError if devices do not divide the batch, Diverged when more than max_bad_steps steps in a row were skipped
  (see make_update).
  """
  # Where every later state lies: the update compiles once.
  state = jax.device_put(state, jax.local_devices()[0])
  bad = 0
  while int(state.step) < num_steps:
    state, metrics = step(state, batch)
    bad = 0 if bool(metrics.taken) else bad + 1
    if bad > max_bad_steps:
      raise Diverged(
        f"{bad} steps in a row up to step {int(state.step)} had no finite gradient of usual size (the last norm was "
        f"{float(metrics.gradient_norm):.3g}, usual {float(state.norm):.3g}); the last good checkpoint is kept"
      )
    yield state, metrics
