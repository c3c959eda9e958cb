"""The theory of a run, and what follows from it alone."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp

from flowqcd.flows import trivializing
from flowqcd.runs.tree import field
from flowqcd.theory import determinant
from flowqcd.types import Array


@dataclasses.dataclass(frozen=True)
class Theory:
  """The target: Wilson gauge action and num_flavours (0 or 2) of Wilson quarks."""

  nc: int = field(3, "Number of colours: 1 (U(1)), 2 or 3.")
  lattice: tuple[int, ...] = field((4, 4, 4, 4), "Extents t,x,y,z (2D: t,x).")
  beta: float = field(1.0, "Gauge coupling of S = -(beta/Nc) sum Re tr P.")
  kappa: float = field(0.1, "Hopping parameter of the quarks.")
  num_flavours: int = field(2, "Degenerate quark flavours: 0 or 2.")
  boundary: tuple[float, ...] = field((-1.0, 1.0, 1.0, 1.0), "Fermion phase per direction.")

  def __post_init__(self) -> None:
    """Raise ValueError for a theory that is not there."""
    if self.nc not in (1, 2, 3):
      raise ValueError(f"theory.nc must be 1, 2 or 3, not {self.nc}")
    if len(self.lattice) not in (2, 3, 4) or min(self.lattice) < 2:
      raise ValueError(f"theory.lattice needs 2, 3 or 4 extents of at least 2, not {self.lattice}")
    if self.num_flavours not in (0, 2):
      raise ValueError(f"theory.num_flavours must be 0 or 2, not {self.num_flavours}")
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


def num_planes(theory: Theory) -> int:
  """Planes of directions, Nd (Nd - 1)/2."""
  return math.comb(len(theory.lattice), 2)


def flow_target(theory: Theory) -> trivializing.Target:
  """What the analytic flow aims at: the gauge action and the leading hopping terms of the quarks."""
  if theory.num_flavours:
    return trivializing.two_flavours(theory.beta, theory.kappa, theory.nc, theory.lattice, theory.boundary)
  return trivializing.pure_gauge(theory.beta, len(theory.lattice))


def log_det(theory: Theory, u: Array) -> Array:
  """ln det D D^dag of the quarks, exact; zero for pure gauge theory."""
  if not theory.num_flavours:
    return jnp.zeros((), u.real.dtype)
  return 2 * determinant.log_det(u, theory.kappa, theory.boundary)
