r"""The joint model q(U) q(phi|U) and its weights, arXiv:2208.03832, sec. 2.

w(U) = e^{-S_g(U)}/q(U) (1/n) sum_i e^{-S_pf(U, phi_i)}/q(phi_i|U), phi_i drawn from q(.|U): an unbiased estimate of
e^{-S_g} det(D D^dag)/q(U) at any n, and so good for reweighting and, kept with its state, for independence Metropolis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.models.conditional import Conditional
from flowqcd.types import Array, Key, Params


class Determinant(NamedTuple):
  """Log of the mean over n draws of e^{-S_pf}/q, and the single draws [n]: estimates of ln det of the quarks."""

  log_mean: Array
  log_draws: Array


def log_determinant(
  model: Conditional, num_draws: int, chunk: int = 16, first: int = 0
) -> Callable[[Params, Array, Key], Determinant]:
  """(params, u, key) -> Determinant from num_draws draws, `chunk` of them vectorised at a time.

  Draw i has the key fold_in(key, i), so that the first draws of a larger number are those of a smaller one; with `first`
  they are those from this one on. NaN where a solver failed. Raises ValueError for no draws.
  """
  if min(num_draws, chunk) < 1 or first < 0:
    raise ValueError(
      f"num_draws and chunk must be at least 1, first not negative, not {num_draws}, {chunk} and {first}"
    )

  def run(params: Params, u: Array, key: Key) -> Determinant:
    at = model.at(params, u)

    def one(i: Array) -> Array:
      draw = at.draw(jax.random.fold_in(key, i))
      return -draw.action - draw.log_q

    draws = lax.map(one, first + jnp.arange(num_draws), batch_size=min(chunk, num_draws))
    return Determinant(jax.nn.logsumexp(draws) - jnp.log(num_draws).astype(draws.dtype), draws)

  return run
