"""Independence Metropolis: a Markov chain for the target out of independent weighted proposals.

A proposal with weight w' replaces a state of weight w with probability min(1, w'/w), w = e^{-S}/q up to a constant. Exact
for any q that covers the target, and also when w is an unbiased estimate of the weight that is kept with its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import precision
from flowqcd.types import Array, Kernel, KernelStep, Key, require_state


class Proposal(NamedTuple):
  """Links [Nd, Nc, Nc, *L] and their log weight; also the chain's state, under the same names."""

  u: Array
  log_w: Array


class Info(NamedTuple):
  """What happened in one step. probability: min(1, w'/w), zero where the proposal's weight is not finite."""

  accepted: Array
  probability: Array


class Chain(NamedTuple):
  """A chain over a stream of N samples: index of the sample that the chain sits on after each proposal [N], and whether
  that proposal was accepted [N]; the first one is accepted by definition."""

  index: Array
  accepted: Array


def acceptance_probability(new: Array, old: Array) -> Array:
  """min(1, e^{new - old}) for log weights. A NaN or zero proposal is never taken; any proposal leaves a zero weight.

  Raises TypeError for complex log weights.
  """
  if jnp.iscomplexobj(new) or jnp.iscomplexobj(old):
    raise TypeError(
      "a Markov chain needs positive weights, not complex log weights: run it with their real part, ln |w|, and reweight "
      "by the phase (analysis.weights)"
    )
  ratio = jnp.exp(jnp.minimum(new - old, 0.0))
  # -inf - (-inf) is NaN, and must mean "stay"; so must a NaN weight.
  return jnp.where(jnp.isnan(ratio) | jnp.isneginf(new), 0.0, ratio)


def make(propose: Callable[[Key], Proposal]) -> Kernel:
  """Kernel whose every step draws an independent proposal. init takes links only, with weight zero: the first finite
  proposal replaces them."""

  def init(key: Key, u: Array) -> Proposal:
    del key
    u = precision.rounded(u, "a Markov chain of links")
    return Proposal(u, jnp.full((), -jnp.inf, u.real.dtype))

  def step(key: Key, state: Proposal) -> KernelStep:
    require_state(state)
    draw, accept = jax.random.split(key)
    new = propose(draw)
    probability = acceptance_probability(new.log_w, state.log_w)
    accepted = jax.random.uniform(accept, (), probability.dtype) < probability
    chosen = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, state)
    return KernelStep(chosen, Info(accepted, probability))

  return Kernel(init, step)


@jax.jit
def chain(key: Key, log_w: Array) -> Chain:
  """Run the chain over samples in their order; log_w: [N]. Observables of the chain are x[chain.index].

  Nothing is hidden: a chain that never moves has accepted[1:] all False, for analysis.statistics to report.
  """
  uniform = jax.random.uniform(key, log_w.shape, log_w.real.dtype)

  def step(current: Array, inputs: tuple[Array, Array]) -> tuple[Array, Any]:
    i, r = inputs
    accepted = (r < acceptance_probability(log_w[i], log_w[current])) | (i == 0)
    current = jnp.where(accepted, i, current)
    return current, Chain(current, accepted)

  return lax.scan(step, jnp.zeros((), jnp.int32), (jnp.arange(len(log_w), dtype=jnp.int32), uniform))[1]
