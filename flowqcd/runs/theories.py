"""The theory of a run, and what follows from it alone."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from flowqcd.flows import trivializing
from flowqcd.runs import gauge_actions
from flowqcd.runs.tree import field
from flowqcd.theory import determinant
from flowqcd.types import Action, Array


@dataclasses.dataclass(frozen=True)
class Theory:
  """The target: a gauge action and num_flavours (0 or 2) of Wilson quarks."""

  nc: int = field(3, "Number of colours: 1 (U(1)), 2 or 3.")
  lattice: tuple[int, ...] = field((4, 4, 4, 4), "Extents t,x,y,z (2D: t,x).")
  beta: float = field(1.0, "Gauge coupling of S = -(beta/Nc) [c0 sum Re tr P + c1 sum Re tr R], c0 = 1 - 8 c1.")
  gauge_action: str = field(
    "wilson",
    "wilson: c1 = 0; with rectangles, symanzik: c1 = -1/12; iwasaki: -0.331; dbw2: -1.4088; or PACKAGE.MODULE:NAME, a "
    "runs.gauge_actions.Kind.",
  )
  kappa: float = field(0.1, "Hopping parameter of the quarks.")
  num_flavours: int = field(2, "Degenerate quark flavours: 0 or 2.")
  twisted_mass: float = field(
    0.0, "mu of det(D D^dag + mu^2) for two flavours, D = 1 - kappa H: 2 kappa times the mass of other conventions."
  )
  boundary: tuple[float, ...] = field((-1.0, 1.0, 1.0, 1.0), "Fermion phase per direction.")

  def __post_init__(self) -> None:
    """Raise ValueError for a theory that is not there."""
    if self.nc not in (1, 2, 3):
      raise ValueError(f"theory.nc must be 1, 2 or 3, not {self.nc}")
    if len(self.lattice) not in (2, 3, 4) or min(self.lattice) < 2:
      raise ValueError(f"theory.lattice needs 2, 3 or 4 extents of at least 2, not {self.lattice}")
    if self.num_flavours not in (0, 2):
      raise ValueError(
        f"theory.num_flavours must be 0, or 2 for degenerate Wilson quarks, not {self.num_flavours}: there are no 2+1 "
        "flavours and no clover term"
      )
    gauge_actions.kind(self.gauge_action)
    if self.beta < 0:
      raise ValueError(f"theory.beta must not be negative, not {self.beta}")
    if self.num_flavours:
      self._check_quarks()

  def _check_quarks(self) -> None:
    if len(self.lattice) not in (2, 4):
      raise ValueError(f"quarks need 2 or 4 dimensions, not {len(self.lattice)}")
    if any(n % 2 for n in self.lattice):
      raise ValueError(f"even/odd quarks need even extents, not {self.lattice}")
    if len(self.boundary) != len(self.lattice):
      raise ValueError(f"theory.boundary needs one phase per direction, {len(self.lattice)}, not {self.boundary}")
    if self.kappa <= 0:
      raise ValueError(f"theory.kappa must be positive, not {self.kappa}")
    if not 0 <= self.twisted_mass < math.inf:
      raise ValueError(f"theory.twisted_mass must be a finite number and not negative, not {self.twisted_mass}")


def num_planes(theory: Theory) -> int:
  """Planes of directions, Nd (Nd - 1)/2."""
  return math.comb(len(theory.lattice), 2)


def gauge_kind(theory: Theory) -> gauge_actions.Kind:
  """The theory's gauge action, from the table or the user's own."""
  return gauge_actions.kind(theory.gauge_action)


def gauge_value(theory: Theory, u: Array) -> Array:
  """The theory's gauge action at links u [Nd, Nc, Nc, *L], without constants: a scalar."""
  return gauge_kind(theory).value(u, theory.beta)


def gauge_action(theory: Theory) -> Action:
  """The theory's gauge action with its force."""
  return gauge_kind(theory).make(theory.beta, ())


def require_plaquettes(theory: Theory, what: str, remedy: str) -> None:
  """Raise ValueError where the gauge action has more than plaquettes, for what is made for these alone."""
  if gauge_kind(theory).rest:
    raise ValueError(
      f"{what}: for plaquettes alone, theory.gauge_action = wilson, not for {theory.gauge_action}; {remedy}"
    )


def require_untwisted(theory: Theory, what: str, remedy: str) -> None:
  """Raise ValueError where quarks have a twisted mass, for what is made for those without."""
  if theory.num_flavours and theory.twisted_mass:
    raise ValueError(f"{what}: for theory.twisted_mass = 0, not {theory.twisted_mass}; {remedy}")


def flow_target(theory: Theory) -> trivializing.Target:
  """What the analytic flow aims at: the gauge action's plaquettes and the leading hopping terms of the quarks."""
  beta = gauge_kind(theory).plaquettes * theory.beta
  if theory.num_flavours:
    return trivializing.two_flavours(
      beta, theory.kappa, theory.nc, theory.lattice, theory.boundary, theory.twisted_mass
    )
  return trivializing.pure_gauge(beta, len(theory.lattice))


def plaquette_coupling(theory: Theory) -> float:
  """The plaquettes' coupling in `flow_target`, that of the quarks' hopping terms included."""
  return float(flow_target(theory).beta)


def leading_action(theory: Theory, u: Array) -> Array:
  """The whole gauge action and the leading hopping terms of the quarks at links u, without constants: a scalar."""
  near, rest = trivializing.target_action(flow_target(theory), u), gauge_kind(theory).rest
  return near + rest(u, theory.beta) if rest else near


def log_det(theory: Theory, u: Array) -> Array:
  """ln det(D D^dag + mu^2) of the quarks, mu the twisted mass, exact; zero for pure gauge theory."""
  if not theory.num_flavours:
    return jnp.zeros((), u.real.dtype)
  return 2 * determinant.log_det(u, theory.kappa, theory.boundary, theory.twisted_mass)
