r"""Natural gradient for models of few parameters: from an analytic start to the optimum in a handful of steps.

With the scores s(U) = d log q(U)/d params at fixed U, the step delta solves
  (F + ridge) delta = Cov(s, log w),  F = Cov(s, s), log w = -S - log q, over samples U of q.
Cov(s, log w) is minus the gradient of KL(q||p), and F the Fisher metric, so that delta is the natural gradient (Amari
1998); and it is the least-squares fit of log w by the scores, the Gauss-Newton step of Var(log w), the loss known as
VarGrad (arXiv:2010.10436). Its noise is that of what no step can fit: it goes to zero with q -> p.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from flowqcd import distributed
from flowqcd.models.marginal import Marginal
from flowqcd.training import loop, objectives
from flowqcd.types import AnyArray, Key, Params


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the step."""

  max_parameters: int = _field(1000, "Models of more parameters are refused: the metric is a dense matrix.")
  ridge: float = _field(2e-5, "Added to the metric, relative to its largest eigenvalue.")
  max_kl: float = _field(0.3, "A step is shortened to this KL divergence between old and new model.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    for name in ("max_parameters", "ridge", "max_kl"):
      if getattr(self, name) <= 0:
        raise ValueError(f"natural.{name} must be positive, not {getattr(self, name)}")


_GOOD_VARIANCE = 0.01


class Moments(NamedTuple):
  """Of scores s [P] and log w over samples: means of s, s s^T, s log w, log w and (log w)^2."""

  score: AnyArray
  square: AnyArray
  cross: AnyArray
  log_w: AnyArray
  log_w2: AnyArray


class Step(NamedTuple):
  """direction: the change of the parameters [P]. kl: of the old model from the new one, to second order, before the step
  was shortened."""

  direction: np.ndarray
  kl: float


def moments(model: Marginal, target: objectives.Target) -> objectives.Terms:
  """Samples' terms of Moments, and their log weights.

  target.value must be the action itself: it enters the fit. The scores cost a gradient through the flow's inverse.
  """

  def one(params: Params, key: Key) -> tuple[Moments, objectives.Outcome]:
    sample = model.sample(params, key)
    log_w = -target.value(sample.u) - sample.log_q
    score = ravel_pytree(jax.grad(model.log_prob)(params, sample.u))[0]
    # Differences of nearly equal moments follow, so they are kept in the widest type there is.
    wide = jnp.zeros((), float).dtype
    s, w = score.astype(wide), log_w.astype(wide)
    return Moments(s, jnp.outer(s, s), s * w, w, w * w), objectives.Outcome(log_w)

  return objectives.of_samples(one)


def solve(config: Config, means: Sequence[Moments]) -> Step | None:
  """The step from the moments' means; None where they are not finite.

  Several: of one model at several couplings. The step is that of sum log(v + Var(log w)) then, so that each coupling counts
  by what is left of it, down to v = 0.01, an ESS of 0.99.
  """
  means = [Moments(*(np.asarray(x, float) for x in mean)) for mean in means]
  if not all(np.isfinite(x).all() for mean in means for x in mean):
    return None
  weights = np.array([1 / (_GOOD_VARIANCE + float(mean.log_w2 - mean.log_w**2)) for mean in means])
  weights = weights / weights.sum()
  metric = sum(w * (mean.square - np.outer(mean.score, mean.score)) for w, mean in zip(weights, means))
  right = sum(w * (mean.cross - mean.score * mean.log_w) for w, mean in zip(weights, means))
  values, vectors = np.linalg.eigh(metric)
  direction = vectors @ ((vectors.T @ right) / (values + config.ridge * values[-1]))
  kl = 0.5 * float(direction @ metric @ direction)
  return Step(direction * min(1.0, np.sqrt(config.max_kl / max(kl, 1e-300))), kl)


def make_step(
  model: Marginal, target: objectives.Target, config: Config, chunk: int
) -> Callable[[loop.State, int], tuple[loop.State, loop.Metrics]]:
  """(state, batch) -> the state after a step, and its metrics, with the keys of loop.make_step; for loop.train.

  The metrics' gradient_norm is the length of the step. The batch should be several times the number of parameters. A
  batch whose moments are not finite changes nothing.
  Raises ValueError for a model of too many parameters.
  """
  return make_family_step(lambda _: (model, target), [()], config, chunk)


def make_family_step(
  at: Callable[[Any], tuple[Marginal, objectives.Target]], couplings: Sequence[Any], config: Config, chunk: int
) -> Callable[[loop.State, int], tuple[loop.State, loop.Metrics]]:
  """The same for one model at several couplings, each with a batch of its own; `at` takes a tree of traced scalars.

  The metrics' log_w has the samples of all couplings in turn, with the mean over all of them at each: ln Z differs.
  """
  if not couplings:
    raise ValueError("a family is trained at one coupling or more, not none")

  def terms(both: tuple[Params, Any], keys: Key) -> tuple[Moments, objectives.Outcome]:
    params, coupling = both
    return moments(*at(coupling))(params, keys)

  def zeros(both: tuple[Params, Any]) -> Moments:
    size = ravel_pytree(both[0])[0].size
    return Moments(*(jnp.zeros(shape, float) for shape in ((size,), (size, size), (size,), (), ())))

  mean_moments = distributed.data_parallel(terms, chunk, zeros=zeros)

  def step(state: loop.State, batch: int) -> tuple[loop.State, loop.Metrics]:
    flat, unflatten = ravel_pytree(state.params)
    if flat.size > config.max_parameters:
      raise ValueError(
        f"natural gradient needs at most natural.max_parameters = {config.max_parameters} parameters, not {flat.size}"
      )
    means, log_w = [], []
    for i, coupling in enumerate(couplings):
      mean, outcome = mean_moments((state.params, coupling), loop.step_keys(state, batch, i * batch))
      means.append(mean)
      log_w.append(outcome.log_w)
    overall = np.mean(log_w)
    log_w = [x + (overall - np.mean(x)) for x in log_w] if len(couplings) > 1 else log_w
    found = solve(config, means)
    taken = found is not None
    if found is not None:
      state = state._replace(params=unflatten(flat + jnp.asarray(found.direction, flat.dtype)))
    size = float(np.linalg.norm(found.direction)) if taken else float("nan")
    skipped = state.skipped + jnp.asarray(not taken, state.skipped.dtype)
    return state._replace(step=state.step + 1, skipped=skipped), loop.Metrics(np.concatenate(log_w), size, taken)

  return step
