"""Which model of pseudofermions a run has: a table of kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flowqcd.flows import hopping, ptcn
from flowqcd.models import conditional
from flowqcd.runs import theories, tree
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field
from flowqcd.theory import pseudofermion
from flowqcd.types import ConditionalFlow


class Kind(NamedTuple):
  """A kind of flow of pseudofermions.

  config: the dataclass of its settings, which are the group of the kind's name; None where it has none of its own. make:
  (all settings, theory, twist) -> the flow that aims at M + i twist gamma5 on odd sites, or at D on all of them; None where
  there is no model. twisted: whether it may be of quarks with a twisted mass.
  """

  config: type | None
  make: Callable[[Any, Theory, float], ConditionalFlow] | None
  twisted: bool = False


def _hopping(choice: Conditional, theory: Theory, twist: float) -> ConditionalFlow:
  expansion = hopping.odd(choice.hopping, theory.kappa, theory.lattice, theory.boundary, twist)
  return expansion if choice.even_odd else hopping.full(expansion, theory.kappa, theory.boundary)


def _networks(choice: Conditional, theory: Theory, twist: float) -> ConditionalFlow:
  make = ptcn.odd if choice.even_odd else ptcn.full
  return make(choice.ptcn, theory.nc, theory.lattice, theory.boundary)


def _both(choice: Conditional, theory: Theory, twist: float) -> ConditionalFlow:
  return conditional.chain(_networks(choice, theory, twist), _hopping(choice, theory, twist))


KINDS: Mapping[str, Kind] = {
  "none": Kind(None, None, twisted=True),
  "hopping": Kind(hopping.Config, _hopping),
  "ptcn": Kind(ptcn.Config, _networks, twisted=True),
  "both": Kind(None, _both),
}


@dataclasses.dataclass(frozen=True)
class _Choice:
  """A kind of model, and what all kinds have; settings of each kind follow."""

  kind: str = field(
    "none", "none; hopping: from the hopping expansion; ptcn: the paper's networks; both: ptcn, then hopping."
  )
  draws: int = field(16, "Pseudofermion draws for each configuration in sampling and evaluation.")
  chunk: int = field(16, "Draws vectorised at once for each configuration.")
  even_odd: bool = field(True, "Pseudofermions on odd sites, for the Schur complement; or else on all sites.")
  hasenbusch_mass: float = field(0.0, "Mass that splits the determinant over two pseudofermions; 0 for one.")

  def __post_init__(self) -> None:
    """Raise ValueError for a model that is not there."""
    tree.choose(KINDS, self.kind, "conditional.kind")
    if min(self.draws, self.chunk) < 1:
      raise ValueError(f"conditional.draws and chunk must be at least 1, not {self.draws} and {self.chunk}")
    if self.hasenbusch_mass < 0:
      raise ValueError(f"conditional.hasenbusch_mass must not be negative, not {self.hasenbusch_mass}")
    if self.hasenbusch_mass and not self.even_odd:
      raise ValueError("conditional.hasenbusch_mass needs conditional.even_odd = true")


_GROUPS = {name: kind.config() for name, kind in KINDS.items() if kind.config}


@dataclasses.dataclass(frozen=True)
class Conditional(tree.with_groups(_Choice, "_Choice", _GROUPS)):
  """The model of pseudofermions at given links; plays no part where there are no quarks."""


def has_model(choice: Conditional, theory: Theory) -> bool:
  """Whether there are pseudofermions to model; without quarks there are none, whatever the kind."""
  return KINDS[choice.kind].make is not None and theory.num_flavours > 0


def check(choice: Conditional, theory: Theory) -> None:
  """Raise ValueError for a model that quarks with a twisted mass do not have."""
  if not KINDS[choice.kind].twisted:
    theories.require_untwisted(theory, f"conditional.kind = {choice.kind}", "set conditional.kind = ptcn or none")
  if choice.hasenbusch_mass and has_model(choice, theory):
    theories.require_untwisted(theory, "the Hasenbusch splitting", "set conditional.hasenbusch_mass = 0")


def model(choice: Conditional, theory: Theory, precision: str, mu0: float = 0.0) -> conditional.Conditional:
  """The model of pseudofermions with its action, for fields of this precision, regulated by mu0 in training.

  With a Hasenbusch mass, W = M + i mass gamma5: one factor aims at W, the other at W^{-1} M. On odd sites a twisted mass
  takes the regulator's place. Raises ValueError for a kind that has no model, and as `check` does.
  """
  check(choice, theory)
  make = KINDS[choice.kind].make
  if make is None:
    raise ValueError(f"conditional.kind = {choice.kind} has no model of pseudofermions")
  mu, flow = theory.twisted_mass, lambda twist: make(choice, theory, twist)
  # Errors of the actions' values go with the square of these, gradients for training with the first power.
  tolerances = (1e-6, 1e-6) if precision == "double" else (1e-5, 1e-5)
  if not choice.even_odd:
    action = pseudofermion.plain(theory.kappa, theory.boundary, mu0 + mu**2, tolerances)
    return conditional.make([conditional.Factor(flow(0.0), action, 1)])
  light = flow(0.0)
  if not choice.hasenbusch_mass:
    action = pseudofermion.even_odd(theory.kappa, theory.boundary, 0.0 if mu else mu0, tolerances, mu)
    return conditional.make([conditional.Factor(light, action, 2)])
  heavy = flow(choice.hasenbusch_mass)
  first, second = pseudofermion.hasenbusch(theory.kappa, choice.hasenbusch_mass, theory.boundary, tolerances)
  ratio = conditional.chain(light, conditional.inverted(heavy))
  return conditional.make([conditional.Factor(heavy, first, 2), conditional.Factor(ratio, second, 2)])
