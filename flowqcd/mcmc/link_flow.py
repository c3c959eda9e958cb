"""Markov steps by a flow for every link among its neighbours, of the pure-gauge Wilson action with SU(3).

Links are proposed by `mcmc.link` in two ways. Fresh, with new latent variables: a heat bath for all of SU(3) at once,
which needs no trials. Reflected, with the opposite ones: a link above the middle of its distribution, given its
neighbours, goes as far below it. This is over-relaxation of a link's energy as well as its direction, after Adler
(Phys. Rev. D 23 (1981) 2901) and Neal (bayes-an/9506004), for a distribution that is not normal. Both keep the latent
measure, so that accepting with probability min(1, w'/w), link by link, is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import fusion, group, sites
from flowqcd.mcmc import heatbath, link, metropolis, sweeps
from flowqcd.mcmc.hmc import State, start
from flowqcd.types import Array, Kernel, KernelStep, Key, require_state


class Info(NamedTuple):
  """probability: mean over links and sweeps of min(1, w'/w)."""

  probability: Array


def make(beta: float | Array, reflections: int = 1, overrelaxation: int = 1) -> Kernel:
  """One sweep of fresh links, `reflections` of reflected ones, and `overrelaxation` microcanonical ones of heatbath.

  beta may be traced, and is not checked then. On SU(3) links [Nd, 3, 3, *L] with even extents. Raises ValueError for
  beta < 0, negative numbers of sweeps or other groups, ParityError for odd extents.
  """
  if min(reflections, overrelaxation) < 0 or (not isinstance(beta, Array) and not 0 <= beta < float("inf")):
    raise ValueError(
      f"the link flow needs beta >= 0 and no negative number of sweeps, not {beta}, {reflections} and {overrelaxation}"
    )

  def step(key: Key, state: State) -> KernelStep:
    require_state(state)
    lattice = sites.extents(state.u)
    if state.u.shape[1] != 3:
      raise ValueError(f"the link flow is for SU(3), not for links {state.u.shape}")

    def sweep(halves: Array, inputs: tuple[Key, Array]) -> tuple[Array, Array]:
      key, fresh = inputs
      move = lambda key, u, staple: update(key, u, staple, beta / 3, fresh)
      halves, probability = sweeps.sweep(key, halves, lattice, move)
      return group.reunitarise(halves), jnp.mean(probability)

    count = 1 + reflections
    halves = sweeps.split(state.u)
    halves, probability = lax.scan(sweep, halves, (jax.random.split(key, count), jnp.arange(count) == 0))
    u = sweeps.merge(heatbath.relaxed(halves, lattice, overrelaxation), lattice)
    return KernelStep(State(u), Info(jnp.mean(probability)))

  return Kernel(start, step)


def update(key: Key, u: Array, staple: Array, s: float | Array, fresh: bool | Array) -> tuple[Array, Array]:
  """Links [3, 3, n] after a move that keeps e^{s Re tr U A}, the sums A of staples fixed; and min(1, w'/w), [n].

  fresh: whether to new latent variables, or to the opposite ones; a bool, or traced.
  """
  propose, accept = jax.random.split(key)
  frame = link.frame(staple, s)
  old = link.inverse(frame, fusion.materialise(link.to_frame(frame, u)))
  latent = lax.cond(fresh, lambda _: link.draw(propose, u.shape[-1], u.dtype), link.reflect, old.latent)
  new = link.forward(frame, latent)
  probability = metropolis.acceptance_probability(new.log_w, old.log_w)
  accepted = jax.random.uniform(accept, probability.shape, probability.dtype) < probability
  return jnp.where(accepted, link.from_frame(frame, new.x), u), probability
