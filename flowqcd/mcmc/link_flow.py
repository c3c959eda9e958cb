"""Markov steps by a flow for every link among its neighbours, of the pure-gauge Wilson action with SU(3).

Links are proposed by `mcmc.link` in two ways. Fresh, with new latent variables: a heat bath for all of SU(3) at once,
which needs no trials. Reflected, with the opposite ones: a link above the middle of its distribution, given its
neighbours, goes as far below it. This is over-relaxation of a link's energy as well as its direction, after Adler
(Phys. Rev. D 23 (1981) 2901) and Neal (bayes-an/9506004), for a distribution that is not normal. Both keep the latent
measure, so that accepting with probability min(1, w'/w), link by link, is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import fusion, group, sites
from flowqcd.mcmc import heatbath, link, metropolis, sweeps
from flowqcd.mcmc.hmc import State
from flowqcd.types import Array, Kernel, KernelStep, Key


class Info(NamedTuple):
  """probability: mean over links and sweeps of min(1, w'/w)."""

  probability: Array


Move = Callable[[Key, link.Latent], link.Latent]
"""Latent variables, by a map or a draw that keeps their measure and is its own reverse."""


def fresh(key: Key, old: link.Latent) -> link.Latent:
  """New latent variables."""
  return link.draw(key, old.quantiles.shape[-1], old.phases.dtype)


def reflected(key: Key, old: link.Latent) -> link.Latent:
  """The opposite ones."""
  del key
  return link.reflect(old)


def make(beta: float | Array, reflections: int = 1, overrelaxation: int = 0) -> Kernel:
  """One sweep of fresh links, `reflections` of reflected ones, and `overrelaxation` microcanonical ones of heatbath.

  beta may be traced, and is not checked then. On SU(3) links [Nd, 3, 3, *L] with even extents. Raises ValueError for
  beta < 0, negative numbers of sweeps or other groups, ParityError for odd extents.
  """
  if min(reflections, overrelaxation) < 0 or (not isinstance(beta, Array) and beta < 0):
    raise ValueError(
      f"the link flow needs beta >= 0 and no negative number of sweeps, not {beta}, {reflections} and {overrelaxation}"
    )

  def step(key: Key, state: State) -> KernelStep:
    lattice = sites.extents(state.u)
    if state.u.shape[1] != 3:
      raise ValueError(f"the link flow is for SU(3), not for links {state.u.shape}")
    first, rest = jax.random.split(key)
    halves, probability = _sweep(first, sweeps.split(state.u), lattice, beta / 3, fresh)

    def again(halves: Array, key: Key) -> tuple[Array, Array]:
      return _sweep(key, halves, lattice, beta / 3, reflected)

    halves, more = lax.scan(again, halves, jax.random.split(rest, reflections))
    u = sweeps.merge(heatbath.relaxed(halves, lattice, overrelaxation), lattice)
    return KernelStep(State(u), Info((probability + jnp.sum(more)) / (1 + reflections)))

  return Kernel(init=lambda key, u: State(u), step=step)


def _sweep(key: Key, halves: Array, lattice: sites.Extents, s: float | Array, move: Move) -> tuple[Array, Array]:
  """Links after a sweep, and its mean acceptance probability."""
  new, probability = sweeps.sweep(key, halves, lattice, lambda key, u, staple: update(key, u, staple, s, move))
  return group.reunitarise(new), jnp.mean(probability)


def update(key: Key, u: Array, staple: Array, s: float | Array, move: Move) -> tuple[Array, Array]:
  """Links [3, 3, n] after a move that keeps e^{s Re tr U A}, the sums A of staples fixed; and min(1, w'/w), [n]."""
  propose, accept = jax.random.split(key)
  frame = link.frame(staple, s)
  old = link.inverse(frame, fusion.materialise(link.to_frame(frame, u)))
  new = link.forward(frame, move(propose, old.latent))
  probability = metropolis.acceptance_probability(new.log_w, old.log_w)
  accepted = jax.random.uniform(accept, probability.shape, probability.dtype) < probability
  return jnp.where(accepted, link.from_frame(frame, new.x), u), probability
