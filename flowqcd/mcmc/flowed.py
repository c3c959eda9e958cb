r"""HMC in the variables of a flow: U = f(z), and z moves in S_f(z) = S(f(z)) - log |det df/dz|.

Any invertible f with its exact log-determinant gives e^{-S} for U; a trivializing one makes S_f nearly constant, so that
long trajectories of z decorrelate U. Luescher, arXiv:0907.5491, sec. 2; field-transformation HMC. A flow that is integrated
in steps is as exact here as its log-determinant is in weights.
"""

from __future__ import annotations

from typing import Any

from flowqcd.lattice import group, precision
from flowqcd.types import Action, Array, Fields, Flow, Key, Params, Refreshed, require_action


def action(target: Action, flow: Flow, params: Params) -> Action:
  """S_f on z [Nd, Nc, Nc, *L], with the target's auxiliary fields, for `hmc.make`; flow.forward(params, z).point is U.

  The force is the derivative of S_f by reverse mode, through the flow. Raises TypeError where
  `target` is no Action.
  """
  require_action(target)

  def value(z: Array, fields: Fields) -> Array:
    end = flow.forward(params, z)
    return target.value(end.point, fields) - end.logdet

  def refresh(key: Key, z: Array) -> Refreshed:
    end = flow.forward(params, z)
    fresh = target.refresh(key, end.point)
    return Refreshed(fresh.fields, fresh.value - end.logdet, (fresh.terms, -end.logdet))

  def local(z: Array, fields: Fields) -> tuple[Any, Array]:
    end = flow.forward(params, z)
    return target.terms(end.point, fields), -end.logdet

  def force(z: Array, fields: Fields) -> Array:
    return group.lie_derivative(lambda u: value(u, fields))(z)

  return precision.of_links(Action(refresh, value, force, local))
