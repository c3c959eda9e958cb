"""Self-training losses: reverse Kullback-Leibler divergences of marginal and of conditional models, variance of log w.

Each is given as Terms, what a step averages over its batch; `of_loss` makes them of a loss of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import precision
from flowqcd.models.conditional import Conditional
from flowqcd.models.marginal import Marginal
from flowqcd.types import Array, Fields, Key, Params


class Target(NamedTuple):
  """The training target at one sample.

  gradient: (key, u) -> scalar whose gradient in u is (an unbiased estimate of) that of S(u); its value may mean nothing.
  value: u -> S(u) for the log, as far as it is cheap.
  """

  gradient: Callable[[Key, Array], Array]
  value: Callable[[Array], Array]


class Outcome(NamedTuple):
  """Of one sample: log w = -S - log q, with the logged S; draw_variance: of conditional models, see `conditional_kl`."""

  log_w: Array
  draw_variance: Array | None = None


Terms = Callable[..., tuple[Any, Outcome]]
"""(params, keys of n samples [n], *fixed) -> what is averaged, summed over these samples, such as the gradient of their
losses; and their outcomes [n]. fixed: further arguments, the same for every sample."""


def of_loss(loss: Callable[..., tuple[Array, Outcome]]) -> Terms:
  """The gradient of the summed loss, from loss: (params, one sample's key, *fixed) -> (its value, its outcome).

  One backward pass for all samples adds up the gradients of weights where they arise, while gradients of single samples
  are as many trees of parameters to store and read again.
  """

  def summed(params: Params, keys: Key, *fixed: Any) -> tuple[Array, Outcome]:
    values, outcomes = jax.vmap(lambda key: loss(params, key, *fixed))(keys)
    return jnp.sum(values), outcomes

  return jax.grad(summed, has_aux=True)


def of_samples(one: Callable[..., tuple[Any, Outcome]]) -> Terms:
  """The sum of one: (params, one sample's key, *fixed) -> (a tree of its terms, its outcome)."""

  def terms(params: Params, keys: Key, *fixed: Any) -> tuple[Any, Outcome]:
    each, outcomes = jax.vmap(lambda key: one(params, key, *fixed))(keys)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), each), outcomes

  return terms


class Proposal(NamedTuple):
  """Links and ln(e^{-S_g}/q(U))."""

  u: Array
  log_w: Array


def reverse_kl(model: Marginal, target: Target, path: bool = False) -> Terms:
  """The gradient of log q(U) + S(U) at samples U = f(z), and their log weights.

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

  return of_loss(loss)


class Covariance(NamedTuple):
  """Of scores s = d log q(U)/d params at fixed U, trees like the parameters: means of s and s log w; and of log w."""

  score: Params
  cross: Params
  log_w: Array


def variance(model: Marginal, target: Target) -> Terms:
  """Samples' terms of Covariance and their log weights, for `variance_gradient` of the means.

  Var(log w)/2 over samples that are held fixed is VarGrad, arXiv:2010.10436. Its gradient, -Cov(s, log w), is that of the
  reverse KL divergence with the best of constant baselines, and needs no derivative of the action; target.value must be
  the action itself. It costs one gradient through the inverse.
  """

  def one(params: Params, key: Key) -> tuple[Covariance, Outcome]:
    sample = model.sample(params, key)
    log_w = -target.value(sample.u) - sample.log_q
    score = jax.grad(model.log_prob)(params, sample.u)
    return Covariance(score, jax.tree.map(lambda s: s * log_w.astype(s.dtype), score), log_w), Outcome(log_w)

  return of_samples(one)


def variance_gradient(mean: Covariance) -> Params:
  """The gradient of Var(log w)/2 from the means of `variance` over a batch."""
  return jax.tree.map(lambda cross, score: mean.log_w.astype(score.dtype) * score - cross, mean.cross, mean.score)


def variance_zeros(params: Params) -> Covariance:
  """A Covariance of zeros, to add to."""
  zeros = jax.tree.map(jnp.zeros_like, params)
  return Covariance(zeros, zeros, jnp.zeros((), jax.tree.leaves(params)[0].dtype))


def conditional_kl(
  propose: Callable[[Params, Key], Proposal], model: Conditional, num_draws: int = 1, path: bool = False
) -> Terms:
  """The gradient of log q(phi|U) + S_pf(U, phi) at draws of U, with num_draws of phi for each, and log weights.

  The terms' one further argument is `fixed`, the marginal model's parameters. The mean is the gradient of the joint
  model's KL(q||p) with the marginal model fixed. propose: (fixed, key) -> U and ln(e^{-S_g}/q(U)), the marginal model's
  part of the weight. Several draws share what the model computes of U; the outcomes' log w [n, num_draws] are those of
  single draws. arXiv:2208.03832, sec. 3.1.

  path: leave out the score term d log q(phi|U)/d params at fixed phi, as in `reverse_kl`. With phi = A z, the derivative
  by phi is then 2 ((D D^dag + mu0)^{-1} A - A^{-dag}) z, which vanishes draw by draw where A A^dag is the covariance of the
  action; with the score term its variance stays that of z z^dag - 1. It costs one pass through the inverse and back.

  The outcomes' draw_variance [n, num_draws] is |d ln w/dz|^2 / 4 over real and imaginary parts. For linear flows its mean
  is the variance of ln w over draws at fixed links, sum (lambda - 1)^2 over the eigenvalues of A^dag (D D^dag)^{-1} A: a
  sum over all modes for each draw, with far less noise than log w has, and twice the KL divergence once that is small.
  """

  def prepare(params: Params, key: Key, fixed: Params) -> tuple[Proposal, Fields]:
    marginal_key, conditional_key = jax.random.split(key)
    proposal = lax.stop_gradient(propose(fixed, marginal_key))
    keys = jax.vmap(lambda i: jax.random.fold_in(conditional_key, i))(jnp.arange(num_draws))
    return proposal, lax.map(model.at(params, proposal.u).noise, keys)

  def losses(params: Params, proposal: Proposal, z: Fields) -> tuple[Array, Array]:
    at = model.at(params, proposal.u)
    constant = model.at(lax.stop_gradient(params), proposal.u) if path else at

    def one(z: Fields) -> tuple[Array, Array]:
      draw = at.image(z)
      log_q = constant.log_prob(draw.phi) if path else draw.log_q
      return log_q + draw.action, proposal.log_w - draw.action - draw.log_q

    values, log_w = lax.map(one, z)
    return jnp.sum(values), log_w

  def summed(params: Params, z: Fields, proposals: Proposal) -> tuple[Array, Array]:
    values, log_w = jax.vmap(losses, (None, 0, 0))(params, proposals, z)
    return jnp.sum(values), log_w

  def terms(params: Params, keys: Key, fixed: Params) -> tuple[Params, Outcome]:
    proposals, z = jax.vmap(prepare, (None, 0, None))(params, keys, fixed)
    (by_params, by_z), log_w = jax.grad(summed, argnums=(0, 1), has_aux=True)(params, z, proposals)
    squares = (jnp.sum(jnp.abs(x.reshape(*log_w.shape, -1)) ** 2, axis=-1) for x in jax.tree.leaves(by_z))
    return jax.tree.map(lambda g: g / num_draws, by_params), Outcome(log_w, precision.added(squares) / 4)

  return terms
