r"""Annealed importance sampling: from weighted links of one coupling to weighted links of another, exactly.

From a start with weight w_0 = e^{-S_0(U)}/q(U), each stage k = 1 .. n multiplies the weight by e^{S_{k-1}(U) - S_k(U)}
and then moves U by a kernel that leaves e^{-S_k} invariant. Then E[w_n f(U_n)] = integral of e^{-S_n} f for every f,
however far from equilibrium the moves are: reweighting and ln Z are exact, and the ESS says what the stages were worth.
Neal, physics/9803008; Jarzynski, cond-mat/9610209. With flows, as the start or between the stages, this is a stochastic
normalizing flow, arXiv:2002.06707 and, for lattice fields, 2201.08862.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.mcmc import hmc
from flowqcd.types import Action, Array, FlowResult, Kernel, Key


class Annealed(NamedTuple):
  """Links [Nd, Nc, Nc, *L] and their log weight; info: of the moves, with a leading axis of stages."""

  u: Array
  log_w: Array
  info: Any


def make(
  action_at: Callable[[Array], Action],
  couplings: Sequence[float] | np.ndarray | Array,
  kernel_at: Callable[[Array], Kernel] | None = None,
  transport: Callable[[Array, Array, Array], FlowResult] | None = None,
) -> Callable[[Key, Array, Array], Annealed]:
  """(key, links, log weight for couplings[0]) -> Annealed for couplings[-1]. `jax.vmap` it for many starts.

  action_at: a coupling, traced -> its Action, without auxiliary fields. kernel_at: a coupling -> moves that keep e^{-S}, on
  states hmc.State; one step for each stage; None is HMC of hmc.make's defaults. transport: (links, old coupling, new) -> an
  invertible map f of the links before the weight is changed, which is then by e^{S_{k-1}(U) - S_k(f(U))} |det df/dU|. All
  stages are one program. Raises ValueError for less than two couplings, or actions with auxiliary fields.
  """
  path = jnp.asarray(couplings, float)
  if path.ndim != 1 or len(path) < 2:
    raise ValueError(f"annealing needs a list of at least two couplings, not an array of shape {path.shape}")

  if kernel_at is None:
    kernel_at = lambda coupling: hmc.make(action_at(coupling))

  def run(key: Key, u: Array, log_w: Array) -> Annealed:
    real = u.real.dtype

    def stage(carry: tuple[Array, Array], item: tuple[Key, Array, Array]) -> tuple[tuple[Array, Array], Array]:
      (u, log_w), (key, old, new) = carry, item
      after = action_at(new)
      fields, structure = jax.tree.flatten(jax.eval_shape(after.refresh, key, u).fields)
      if fields:
        raise ValueError(
          "annealing is for actions without auxiliary fields, which the weight would have to average over"
        )
      moved = FlowResult(u, jnp.zeros((), real)) if transport is None else transport(u, old, new)
      none = structure.unflatten([])
      log_w = log_w + action_at(old).value(u, none) - after.value(moved.point, none) + moved.logdet
      state, info = kernel_at(new).step(key, hmc.State(moved.point))
      return (state.u, log_w), info

    at = path.astype(real)
    items = (jax.random.split(key, len(at) - 1), at[:-1], at[1:])
    (u, log_w), info = lax.scan(stage, (u, jnp.asarray(log_w, real)), items)
    return Annealed(u, log_w, info)

  return run
