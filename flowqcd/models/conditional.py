r"""Models q(phi|U) of pseudofermions, one factor for each pseudofermion of the action; arXiv:2208.03832, sec. 3.1.

Densities are with respect to prod d^2 phi / pi, in which a complex normal field has the density e^{-|chi|^2} and the
integral of e^{-phi^dag (A A^dag)^{-1} phi} is det A A^dag: no power of pi is left in any weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowqcd.lattice import precision
from flowqcd.theory import pseudofermion, solvers
from flowqcd.types import Action, Array, ConditionalFlow, Fields, Key, LinearFlow, Params


class Factor(NamedTuple):
  """A flow and the action of its pseudofermion. parities: 1 for fields on all sites, 2 for odd sites only."""

  flow: ConditionalFlow
  action: Action
  parities: int


class Draw(NamedTuple):
  """Pseudofermions (one field for each factor), log q(phi|U), and S_pf(U, phi)."""

  phi: Fields
  log_q: Array
  action: Array


class AtLinks(NamedTuple):
  """The model at given links.

  noise: key -> the Gaussian fields z of a draw.  image: z -> Draw.  log_prob: phi -> log q(phi|U). The last two are
  differentiable in the parameters and in their argument.
  """

  noise: Callable[[Key], Fields]
  image: Callable[[Fields], Draw]
  log_prob: Callable[[Fields], Array]

  def draw(self, key: Key) -> Draw:
    """One draw."""
    return self.image(self.noise(key))


class Conditional(NamedTuple):
  """init: key -> params.  at: (params, u) -> AtLinks, which does once what all draws at these links share; it raises
  ValueError for parameters of another number of factors."""

  init: Callable[[Key], Params]
  at: Callable[[Params, Array], AtLinks]

  @precision.of_argument(2)
  def draw(self, params: Params, u: Array, key: Key) -> Draw:
    """One draw."""
    return self.at(params, u).draw(key)

  @precision.of_argument(2)
  def log_prob(self, params: Params, u: Array, phi: Fields) -> Array:
    """log q(phi|U)."""
    return self.at(params, u).log_prob(phi)


def make(factors: Sequence[Factor]) -> Conditional:
  """The product of independent factors. Their weights e^{-S_pf}/q have the product of determinants as mean."""

  def init(key: Key) -> Params:
    return tuple(f.flow.init(k) for f, k in zip(factors, jax.random.split(key, len(factors))))

  def at(params: Params, u: Array) -> AtLinks:
    if len(params) != len(factors):
      # Factors without parameters would be left out, and the weights those of another theory.
      raise ValueError(f"a model of {len(factors)} factors needs parameters for each, not for {len(params)}")
    flows = [factor.flow.at(p, u) for factor, p in zip(factors, params)]

    def noise(key: Key) -> Fields:
      keys = jax.random.split(key, len(factors))
      return tuple(pseudofermion.gaussian(k, u, factor.parities) for factor, k in zip(factors, keys))

    def image(z: Fields) -> Draw:
      phi, log_q, action = [], jnp.zeros((), u.real.dtype), jnp.zeros((), u.real.dtype)
      for factor, flow, chi in zip(factors, flows, z, strict=True):
        phi.append(flow.forward(chi))
        log_q += -solvers.norm2(chi) - flow.logdet
        action += factor.action.value(u, phi[-1])
      return Draw(tuple(phi), log_q, action)

    def log_prob(phi: Fields) -> Array:
      pairs = zip(flows, phi, strict=True)
      return precision.added(-solvers.norm2(flow.inverse(field)) - flow.logdet for flow, field in pairs)

    return AtLinks(noise, image, log_prob)

  return Conditional(init, at)


def chain(first: ConditionalFlow, second: ConditionalFlow) -> ConditionalFlow:
  """phi = A_second A_first z."""

  def init(key: Key) -> Params:
    one, two = jax.random.split(key)
    return first.init(one), second.init(two)

  def at(params: Params, u: Array) -> LinearFlow:
    a, b = first.at(params[0], u), second.at(params[1], u)
    forward = lambda z: b.forward(a.forward(z))
    return LinearFlow(forward, lambda phi: a.inverse(b.inverse(phi)), a.logdet + b.logdet)

  return ConditionalFlow(init, at)


def inverted(flow: ConditionalFlow) -> ConditionalFlow:
  """phi = A^{-1} z."""

  def at(params: Params, u: Array) -> LinearFlow:
    a = flow.at(params, u)
    return LinearFlow(a.inverse, a.forward, -a.logdet)

  return ConditionalFlow(flow.init, at)
