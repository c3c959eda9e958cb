"""From one theory to another by Monte Carlo moves: settings, the theories on the way, and the moves there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from flowqcd.flows import wilson_loops
from flowqcd.mcmc import heatbath, link_flow
from flowqcd.runs import theories, trajectories
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.runs.tree import choose, field
from flowqcd.training import continuity
from flowqcd.types import Action, Array, Kernel


@dataclasses.dataclass(frozen=True)
class Annealing:
  """From the flow's coupling to the theory's by Monte Carlo moves, with exact weights."""

  start_beta: float = field(0.0, "Coupling that the flow aims at; theory.beta is the last.")
  start_kappa: float = field(0.0, "kappa of the quarks that the flow aims at, 0 for none; theory.kappa is the last.")
  stages: int = field(16, "New couplings, each with one move.")
  moves: str = field(
    "heatbath",
    "heatbath or link_flow: sweeps over all links, the latter of SU(3); hmc: a trajectory, as set by hmc, for quarks.",
  )
  reflections: int = field(1, "Reflected sweeps of the link flow after each fresh one.")
  overrelaxation: int = field(0, "Microcanonical sweeps after those.")
  transport: bool = field(True, "Move the links along a fitted flow between couplings.")
  nodes: int = field(9, "Couplings at which Monte Carlo streams fit that flow.")
  streams: int = field(64, "Those streams.")
  trajectories: int = field(20, "Moves of each stream at each coupling, of which the second half is used.")
  degree: int = field(3, "Degree in the coupling of the fitted flow's coefficients.")
  loops: tuple[str, ...] = field((), "Larger loops in that flow, as aabAAB,abcABC: see flowqcd.flows.wilson_loops.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot run."""
    choose(MOVES, self.moves, "annealing.moves")
    if min(self.reflections, self.overrelaxation) < 0:
      raise ValueError(
        f"annealing.reflections and overrelaxation must not be negative, not {self.reflections}, {self.overrelaxation}"
      )
    if min(self.start_beta, self.start_kappa) < 0 or self.stages < 1:
      raise ValueError(
        "annealing needs start_beta and start_kappa >= 0 and at least one stage, not "
        f"{self.start_beta}, {self.start_kappa} and {self.stages}"
      )
    if self.nodes <= self.degree or min(self.degree, self.streams) < 1 or self.trajectories < 2:
      raise ValueError("annealing needs more nodes than its degree, a degree and streams of at least 1, 2 trajectories")


class Course(NamedTuple):
  """From the theory that a flow aims at to the run's, along plaquettes and the quarks' leading hopping terms."""

  start: Theory
  end: Theory
  plan: Annealing
  hmc: HMC

  @property
  def ends(self) -> tuple[float, float]:
    """The first and the last coupling of plaquettes, those of the quarks' hopping terms included."""
    return theories.plaquette_coupling(self.start), theories.plaquette_coupling(self.end)

  def lines_at(self, beta: float | Array) -> continuity.Lines:
    """The quarks' winding lines at a coupling of the plaquettes; they go with it in proportion from start to end."""
    (s0, s1), lines = self.ends, [theories.flow_target(theory).lines for theory in (self.start, self.end)]
    if not any(lines[1]):
      return continuity.Lines()
    rate = tuple((last - first) / (s1 - s0) for first, last in zip(*lines))
    return continuity.Lines(tuple(x + r * (beta - s0) for x, r in zip(lines[0], rate)), rate)

  def action_at(self, beta: float | Array) -> Action:
    """The action of the stage with this coupling of the plaquettes."""
    kind = theories.gauge_kind(self.end)
    return kind.make(beta / kind.plaquettes, self.lines_at(beta).at)

  def kernel_at(self, beta: Array) -> Kernel:
    """The moves of that stage."""
    return MOVES[self.plan.moves].kernel(self, beta)

  def accepted(self, info: Any) -> Array:
    """Which moves were accepted, or how many of their links, by what the kernel says of a step."""
    return MOVES[self.plan.moves].accepted(info)


class Move(NamedTuple):
  """(course, coupling) -> the kernel; what it says of a step -> the accepted fraction."""

  kernel: Callable[[Course, Array], Kernel]
  accepted: Callable[[Any], Array]


def _link_flow(course: Course, beta: Array) -> Kernel:
  return link_flow.make(beta, course.plan.reflections, course.plan.overrelaxation)


def _hmc(course: Course, beta: Array) -> Kernel:
  return trajectories.kernel_of(course.action_at(beta), course.hmc)


MOVES: Mapping[str, Move] = {
  "heatbath": Move(lambda course, beta: heatbath.make(beta, course.plan.overrelaxation), lambda info: jnp.ones(())),
  "link_flow": Move(_link_flow, lambda info: info.probability),
  "hmc": Move(_hmc, lambda info: info.accepted),
}


def course(theory: Theory, plan: Annealing, hmc: HMC) -> Course:
  """The way to a theory.

  Raises ValueError for quarks at the start alone and a path of no length, for moves by sweeps with quarks or odd extents,
  of the link flow for groups other than SU(3), and with rectangles in the gauge action for all but HMC moves without a
  fitted flow and without quarks.
  """
  if plan.start_kappa and not theory.num_flavours:
    raise ValueError("annealing.start_kappa needs a theory with quarks")
  quarks = {"num_flavours": 2, "kappa": plan.start_kappa} if plan.start_kappa else {"num_flavours": 0}
  found = Course(dataclasses.replace(theory, beta=plan.start_beta, **quarks), theory, plan, hmc)
  first, last = found.ends
  if first == last:
    raise ValueError(f"annealing needs another coupling at its end than at its start, {first}")
  _check_moves(plan.moves, theory)
  if plan.transport:
    theories.require_plaquettes(theory, "the fitted flow of annealing", "set annealing.transport = false")
  if theory.num_flavours:
    theories.require_plaquettes(theory, "annealing with quarks", "set theory.num_flavours = 0, or use `flowqcd sample`")
  return found


def _check_moves(moves: str, theory: Theory) -> None:
  if moves == "hmc":
    return
  theories.require_plaquettes(theory, f"{moves} moves", "set annealing.moves = hmc")
  if theory.num_flavours:
    raise ValueError(f"{moves} moves are for plaquettes alone; with quarks set annealing.moves = hmc")
  if any(n % 2 for n in theory.lattice):
    raise ValueError(f"{moves} moves need even extents, not {theory.lattice}; set annealing.moves = hmc")
  if moves == "link_flow" and theory.nc != 3:
    raise ValueError(f"link_flow moves are for SU(3), not for nc = {theory.nc}; set annealing.moves = heatbath")


def check(plan: Annealing, theory: Theory) -> None:
  """Raise ValueError for larger loops that the lattice does not have."""
  wilson_loops.check(plan.loops, theory.lattice)
