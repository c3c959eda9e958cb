"""A flow of masked layers as one scan, with masks as data: the compiled program holds one layer however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import precision, sites
from flowqcd.types import Array, Flow, FlowResult, Key, Params

Update = Callable[[Array, Params, Any, bool], tuple[Array, Array]]
"""(flat links v [Nd, Nc, Nc, V], a layer's parameters, its masks, whether inverse) -> new links, log Jacobian of what was
done."""


def make(
  init: Callable[[Key], Params], update: Update, layers: Any, nc: int, lattice: sites.Extents, remat: bool
) -> Flow:
  """The flow of all layers in turn, on links [Nd, Nc, Nc, *L].

  Parameters and `layers` have a leading axis of layers. remat: compute layers again in the backward pass, for memory of the
  links only. Raises ShapeError for links of another group or lattice.
  """

  def run(params: Params, u: Array, inverse: bool) -> FlowResult:
    sites.check(u, nc, lattice)

    def step(carry: tuple[Array, Array], inputs: tuple[Params, Any]) -> tuple[tuple[Array, Array], None]:
      (v, total), (params, layer) = carry, inputs
      v, logdet = update(v, params, layer, inverse)
      return (v, total + logdet), None

    start = sites.flatten(u), jnp.zeros((), u.real.dtype)
    (v, logdet), _ = lax.scan(jax.checkpoint(step) if remat else step, start, (params, layers), reverse=inverse)
    return FlowResult(sites.unflatten(v, lattice), logdet)

  return precision.of_flow(
    Flow(
      init=init,
      forward=lambda params, z: run(params, z, False),
      inverse=lambda params, u: run(params, u, True),
    )
  )
