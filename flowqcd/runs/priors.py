"""What a flow of links starts from: a table of priors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from flowqcd.models import priors
from flowqcd.runs import theories
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Prior:
  """What the flow starts from: Haar-random links, or a pure gauge theory by heat bath."""

  beta: float = field(
    0.0, "Coupling of a pure-gauge heat-bath prior; 0 for Haar. ln Z is then relative to the prior's."
  )
  sweeps: int = field(20, "Heat-bath sweeps from Haar links to a sample of the prior.")

  def __post_init__(self) -> None:
    """Raise ValueError for a prior that is not there."""
    if self.beta < 0 or self.sweeps < 1:
      raise ValueError(
        f"prior.beta must not be negative and prior.sweeps at least 1, not {self.beta} and {self.sweeps}"
      )

  @property
  def kind(self) -> str:
    """Its name in the table: without a coupling the prior is Haar's."""
    return "heatbath" if self.beta else "haar"


class Kind(NamedTuple):
  """A prior: (settings, theory, dtype) -> links; and a check that raises ValueError where it cannot be."""

  make: Callable[[Prior, Theory, jnp.dtype], priors.Prior]
  check: Callable[[Prior, Theory], None] = lambda prior, theory: None


def make(prior: Prior, theory: Theory, dtype: jnp.dtype) -> priors.Prior:
  """The prior's links for a theory."""
  return KINDS[prior.kind].make(prior, theory, dtype)


def check(prior: Prior, theory: Theory) -> None:
  """Raise ValueError where the theory cannot start from this prior."""
  KINDS[prior.kind].check(prior, theory)


def reference(prior: Prior) -> str:
  """What ln Z is relative to."""
  return f"pure gauge theory at beta = {prior.beta}" if prior.beta else "Haar"


def _haar(prior: Prior, theory: Theory, dtype: jnp.dtype) -> priors.Prior:
  return priors.haar(theory.nc, theory.lattice, dtype)


def _heat_bath(prior: Prior, theory: Theory, dtype: jnp.dtype) -> priors.Prior:
  return priors.heat_bath(prior.beta, theory.nc, theory.lattice, dtype, prior.sweeps)


def _check_heat_bath(prior: Prior, theory: Theory) -> None:
  theories.require_plaquettes(theory, "a heat-bath prior", "set prior.beta = 0")
  if any(n % 2 for n in theory.lattice):
    raise ValueError(f"a heat-bath prior needs even extents, not {theory.lattice}")


KINDS: Mapping[str, Kind] = {
  "haar": Kind(_haar),
  "heatbath": Kind(_heat_bath, _check_heat_bath),
}
