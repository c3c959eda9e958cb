"""The marginal model q(U): a prior pushed through a flow, arXiv:2208.03832, sec. 3.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flowqcd.lattice import precision
from flowqcd.models.priors import Prior
from flowqcd.types import Array, Flow, Key, Params


class Sample(NamedTuple):
  """Links [Nd, Nc, Nc, *L] and log q(U)."""

  u: Array
  log_q: Array


class Marginal(NamedTuple):
  """init: key -> params; sample: (params, key) -> Sample; log_prob: (params, u) -> log q(u)."""

  init: Callable[[Key], Params]
  sample: Callable[[Params, Key], Sample]
  log_prob: Callable[[Params, Array], Array]


def make(prior: Prior, flow: Flow) -> Marginal:
  """q(f(z)) = r(z) |det df/dz|^{-1}, eq. 1. Weights of one sample: e^{-S(u)}/q(u), with q as `sample` returns it."""

  def sample(params: Params, key: Key) -> Sample:
    z = prior.sample(key)
    u, logdet = flow.forward(params, z)
    return Sample(u, prior.log_prob(z) - logdet)

  def log_prob(params: Params, u: Array) -> Array:
    z, logdet = flow.inverse(params, u)
    return prior.log_prob(z) + logdet

  return Marginal(flow.init, sample, precision.of_argument(1)(log_prob))
