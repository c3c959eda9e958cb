"""Distributions that flows start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd import domains
from flowqcd.lattice import group, sites
from flowqcd.mcmc import heatbath, hmc
from flowqcd.theory import gauge
from flowqcd.types import Array, Key


class Prior(NamedTuple):
  """sample: key -> links [Nd, Nc, Nc, *L].  log_prob: links -> log density with respect to Haar, a scalar.

  The density may lack its normalisation: log Z of weights is then relative to the prior's own.
  """

  sample: Callable[[Key], Array]
  log_prob: Callable[[Array], Array]


def haar(nc: int, lattice: sites.Extents, dtype: jnp.dtype) -> Prior:
  """Independent Haar-random links: log density 0. arXiv:2208.03832, sec. 3.1."""
  volume = 1
  for extent in lattice:
    volume *= extent

  def sample(key: Key) -> Array:
    return domains.split(sites.unflatten(group.haar(key, (len(lattice), nc, nc, volume), dtype), lattice))

  return Prior(sample, lambda u: jnp.zeros((), u.real.dtype))


def heat_bath(beta: float, nc: int, lattice: sites.Extents, dtype: jnp.dtype, sweeps: int = 20) -> Prior:
  """Pure gauge theory at another beta: log density -S_g(u), without -ln Z(beta). arXiv:2208.03832, sec. 2.

  Each sample is `sweeps` heat-bath sweeps, with one over-relaxation each, from Haar-random links. What is left of the start
  decays like e^{-sweeps/tau}, tau the exponential autocorrelation time in sweeps, about one at strong coupling: choose
  sweeps so that observables no longer move with it. Raises ValueError for beta < 0 or no sweeps, ParityError for odd
  extents.
  """
  if sweeps < 1:
    raise ValueError(f"a heat-bath prior needs at least one sweep, not {sweeps}")
  kernel, start = heatbath.make(beta), haar(nc, lattice, dtype)

  def sample(key: Key) -> Array:
    first, rest = jax.random.split(key)
    step = lambda state, key: (kernel.step(key, state).state, None)
    state, _ = lax.scan(step, hmc.State(start.sample(first)), jax.random.split(rest, sweeps))
    # A sample is a constant to whoever differentiates: the loops of the heat bath have no reverse mode.
    return lax.stop_gradient(state.u)

  return Prior(sample, lambda u: -gauge.wilson(u, beta))
