"""Self-training losses: the reverse Kullback-Leibler divergence and its path-gradient form."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from flowqcd.models.marginal import Marginal
from flowqcd.types import Array, Key, Params


class Target(NamedTuple):
  """The training target at one sample.

  gradient: (key, u) -> scalar whose gradient in u is (an unbiased estimate of) that of S(u); its value may mean nothing.
  value: u -> S(u) for the log, as far as it is cheap.
  """

  gradient: Callable[[Key, Array], Array]
  value: Callable[[Array], Array]


class Outcome(NamedTuple):
  """Of one sample: log w = -S - log q, with the logged S."""

  log_w: Array


def reverse_kl(model: Marginal, target: Target, path: bool = False) -> Callable[[Params, Key], tuple[Params, Outcome]]:
  """(params, key) -> gradient of log q(U) + S(U) at one sample U = f(z), and the sample's log weight.

  The mean over samples is the gradient of KL(q||p). path: leave out the score term d log q(U)/d params at fixed U, whose
  mean is zero but whose variance is not; the gradient then vanishes sample by sample once q = p. It costs one pass
  through the inverse. Vaitl et al., arXiv:2206.09016.
  """

  def loss(params: Params, key: Key) -> tuple[Array, Outcome]:
    prior_key, target_key = jax.random.split(key)
    sample = model.sample(params, prior_key)
    log_w = lax.stop_gradient(-target.value(sample.u) - sample.log_q)
    log_q = model.log_prob(lax.stop_gradient(params), sample.u) if path else sample.log_q
    return log_q + target.gradient(target_key, sample.u), Outcome(log_w)

  return jax.grad(loss, has_aux=True)
