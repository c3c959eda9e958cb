r"""Models q(phi|U) of pseudofermions, one factor for each pseudofermion of the action; arXiv:2208.03832, sec. 3.1.

Densities are with respect to prod d^2 phi / pi, in which a complex normal field has the density e^{-|chi|^2} and the
integral of e^{-phi^dag (A A^dag)^{-1} phi} is det A A^dag: no power of pi is left in any weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

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


class Conditional(NamedTuple):
  """init: key -> params.  draw: (params, u, key) -> Draw, differentiable in params.

  log_prob: (params, u, phi) -> log q(phi|U).
  """

  init: Callable[[Key], Params]
  draw: Callable[[Params, Array, Key], Draw]
  log_prob: Callable[[Params, Array, Fields], Array]


def make(factors: Sequence[Factor]) -> Conditional:
  """The product of independent factors. Their weights e^{-S_pf}/q have the product of determinants as mean."""

  def init(key: Key) -> Params:
    return tuple(f.flow.init(k) for f, k in zip(factors, jax.random.split(key, len(factors))))

  def draw(params: Params, u: Array, key: Key) -> Draw:
    phi, log_q, action = [], 0.0, 0.0
    for factor, p, k in zip(factors, params, jax.random.split(key, len(factors))):
      at, chi = factor.flow.at(p, u), pseudofermion.gaussian(k, u, factor.parities)
      phi.append(at.forward(chi))
      log_q += -solvers.norm2(chi) - at.logdet
      action += factor.action.value(u, phi[-1])
    return Draw(tuple(phi), log_q, action)

  def log_prob(params: Params, u: Array, phi: Fields) -> Array:
    flows = [factor.flow.at(p, u) for factor, p in zip(factors, params)]
    return sum(-solvers.norm2(at.inverse(field)) - at.logdet for at, field in zip(flows, phi))

  return Conditional(init, draw, log_prob)


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
