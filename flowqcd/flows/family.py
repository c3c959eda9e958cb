"""One trivializing flow for a range of couplings: its learned part is a polynomial in beta and kappa^4.

deviation(beta, kappa) = sum_m x^i_m y^j_m D_m, x = beta/reference, y = (kappa/reference)^4, i + j from 1 to the order: the
analytic part follows the couplings exactly, and the learned one vanishes with them, as what it corrects does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from flowqcd.flows import trivializing
from flowqcd.lattice import precision, sites
from flowqcd.types import Array, Boundary, Flow, Key, Params


class Couplings(NamedTuple):
  """beta, and kappa of two flavours of Wilson quarks or 0 for none; numbers or traced."""

  beta: float | Array
  kappa: float | Array = 0.0


@dataclasses.dataclass(frozen=True)
class Config:
  """The polynomial. reference: of about the size of the largest couplings; reference_kappa 0 for pure gauge theory."""

  reference_beta: float
  reference_kappa: float = 0.0
  order: int = 3

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if self.reference_beta <= 0 or self.reference_kappa < 0 or self.order < 1:
      raise ValueError(
        f"a family needs a positive reference_beta, reference_kappa >= 0 and an order of at least 1, not {self}"
      )

  @property
  def exponents(self) -> list[tuple[int, int]]:
    """(i, j) of all monomials x^i y^j."""
    quarks = range(self.order + 1) if self.reference_kappa else (0,)
    return [(i, j) for j in quarks for i in range(self.order + 1 - j) if i + j]


class Family(NamedTuple):
  """init: key -> params, zero. at: couplings -> the Flow at them, which takes the family's params.

  target: couplings -> what the analytic part aims at.
  """

  init: Callable[[Key], Params]
  at: Callable[[Couplings], Flow]
  target: Callable[[Couplings], trivializing.Target]


def make(
  config: Config, flow: trivializing.Config, nc: int, lattice: sites.Extents, boundary: Boundary | None = None
) -> Family:
  """A family of `trivializing.make`'s flows on links [Nd, Nc, Nc, *L].

  Parameters: {"deviation": [monomials, trivializing.num_loops, degree + 1]}. boundary: of the quarks, phases of their
  winding lines; needed where there are quarks. Raises ValueError where it is not given.
  """
  nd, exponents = len(lattice), config.exponents
  if config.reference_kappa and boundary is None:
    raise ValueError("a family with quarks needs their boundary phases")

  def init(key: Key) -> Params:
    del key  # The analytic flow is the start; nothing is drawn.
    return {"deviation": jnp.zeros((len(exponents), trivializing.num_loops(flow, nd), flow.degree + 1))}

  def specialise(params: Params, couplings: Couplings) -> Params:
    """Parameters of the trivializing flow at these couplings."""
    x = couplings.beta / config.reference_beta
    y = (couplings.kappa / config.reference_kappa) ** 4 if config.reference_kappa else 0.0
    d = params["deviation"]
    return {"deviation": jnp.tensordot(jnp.stack([jnp.asarray(x**i * y**j, d.dtype) for i, j in exponents]), d, 1)}

  def target(couplings: Couplings) -> trivializing.Target:
    if config.reference_kappa:
      return trivializing.two_flavours(couplings.beta, couplings.kappa, nc, lattice, boundary)
    return trivializing.pure_gauge(couplings.beta, nd)

  def at(couplings: Couplings) -> Flow:
    one = trivializing.make(flow, target(couplings), nc, lattice)
    return precision.of_flow(
      Flow(
        init,
        lambda params, z: one.forward(specialise(params, couplings), z),
        lambda params, u: one.inverse(specialise(params, couplings), u),
      )
    )

  return Family(init, at, target)
