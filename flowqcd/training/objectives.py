"""Self-training losses: reverse Kullback-Leibler divergences of marginal and of conditional models."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax

from flowqcd.models.conditional import Conditional
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


class Proposal(NamedTuple):
  """Links and ln(e^{-S_g}/q(U))."""

  u: Array
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


def conditional_kl(
  propose: Callable[[Params, Key], Proposal], model: Conditional
) -> Callable[[Params, Key, Params], tuple[Params, Outcome]]:
  """(params, key, fixed) -> gradient of log q(phi|U) + S_pf(U, phi) at one draw of U and one of phi, and its log weight.

  The mean is the gradient of the joint model's KL(q||p) with the marginal model fixed. propose: (fixed, key) -> U and
  ln(e^{-S_g}/q(U)), the marginal model's part of the weight; fixed: its parameters. arXiv:2208.03832, sec. 3.1.
  """

  def loss(params: Params, key: Key, fixed: Params) -> tuple[Array, Outcome]:
    marginal_key, conditional_key = jax.random.split(key)
    proposal = lax.stop_gradient(propose(fixed, marginal_key))
    draw = model.draw(params, proposal.u, conditional_key)
    log_w = lax.stop_gradient(proposal.log_w - draw.action - draw.log_q)
    return draw.log_q + draw.action, Outcome(log_w)

  return jax.grad(loss, has_aux=True)
