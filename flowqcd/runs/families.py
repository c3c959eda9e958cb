"""Couplings that one flow serves together."""

from __future__ import annotations

import dataclasses

from flowqcd.flows import family, trivializing
from flowqcd.runs import theories
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field
from flowqcd.types import Flow


@dataclasses.dataclass(frozen=True)
class Family:
  """Couplings that one trivializing flow is trained at together; without any it is for the theory's alone."""

  betas: tuple[float, ...] = field((), "beta at each of them; the theory's is where the flow is evaluated and sampled.")
  kappas: tuple[float, ...] = field((), "kappa at each of them, where there are quarks.")
  order: int = field(3, "Order in beta and kappa^4 of the learned part.")

  def __post_init__(self) -> None:
    """Raise ValueError for a family that is not there."""
    if self.betas and (min(self.betas) < 0 or max(self.betas) <= 0):
      raise ValueError(f"family.betas must not be negative, and not all zero, not {self.betas}")
    if self.kappas and (len(self.kappas) != len(self.betas) or min(self.kappas) <= 0):
      raise ValueError(f"family.kappas must be positive, and as many as family.betas, not {self.kappas}")
    if self.order < 1:
      raise ValueError(f"family.order must be at least 1, not {self.order}")

  @property
  def couplings(self) -> tuple[tuple[float, float], ...]:
    """(beta, kappa) of each member; kappa is 0 without quarks."""
    return tuple(zip(self.betas, self.kappas or (0.0,) * len(self.betas)))


def polynomial(plan: Family) -> family.Config:
  """The polynomial of the family, in units of its largest couplings."""
  return family.Config(max(plan.betas), max(plan.kappas, default=0.0), plan.order)


def make(plan: Family, flow: trivializing.Config, theory: Theory) -> family.Family:
  """The family of flows."""
  return family.make(polynomial(plan), flow, theory.nc, theory.lattice, theory.boundary)


def member(plan: Family, flow: trivializing.Config, theory: Theory) -> Flow:
  """The family's flow at the theory's couplings."""
  kappa = theory.kappa if theory.num_flavours else 0.0
  return make(plan, flow, theory).at(family.Couplings(theory.beta, kappa))


def check(plan: Family, marginal: str, theory: Theory) -> None:
  """Raise ValueError for a family of another kind of flow, or with kappas where there are no quarks."""
  if marginal != "trivializing":
    raise ValueError(f"a family is of trivializing flows: it needs marginal = trivializing, not '{marginal}'")
  theories.require_untwisted(theory, "a family of flows", "set family.betas = ()")
  theories.require_plaquettes(theory, "a family of flows", "set family.betas = ()")
  if bool(plan.kappas) != (theory.num_flavours > 0):
    raise ValueError("a family has kappas where the theory has quarks, and none where it has none")
