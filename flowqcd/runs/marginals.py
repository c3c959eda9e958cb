"""Which flow of links a run has: a table of kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from flowqcd.models import marginal
from flowqcd.runs import families, own, priors, tree
from flowqcd.runs.families import Family
from flowqcd.runs.flows import custom, residual, spectral, trivializing
from flowqcd.runs.flows.kind import Kind
from flowqcd.runs.priors import Prior
from flowqcd.runs.theories import Theory
from flowqcd.types import Flow

KINDS: Mapping[str, Kind] = {
  "trivializing": trivializing.KIND,
  "spectral": spectral.KIND,
  "residual": residual.KIND,
}

GROUPS: Mapping[str, Any] = {kind.group: kind.config() for kind in KINDS.values() if kind.group and kind.config}
"""Settings of all kinds, by the names of their groups."""


def kind(name: str) -> Kind:
  """What a name means: an entry of the table, or the user's PACKAGE.MODULE:FUNCTION. Raises ValueError for neither."""
  return custom.load(name) if own.is_name(name) else tree.choose(KINDS, name, "marginal", "PACKAGE.MODULE:FUNCTION")


@dataclasses.dataclass(frozen=True)
class Choice:
  """A flow of links: the name of its kind, that kind's settings, its prior, and the couplings that it serves together."""

  name: str
  settings: Any = None
  prior: Prior = Prior()
  family: Family = Family()


def check(choice: Choice, theory: Theory) -> None:
  """Raise ValueError where there is no such flow of this theory."""
  kind(choice.name).check(choice.settings, theory)
  if choice.family.betas:
    families.check(choice.family, choice.name, theory)
  priors.check(choice.prior, theory)


def flow(choice: Choice, theory: Theory) -> Flow:
  """The flow of the links of a theory."""
  if choice.family.betas:
    return families.member(choice.family, choice.settings, theory)
  return kind(choice.name).make(choice.settings, theory)


def model(choice: Choice, theory: Theory, dtype: jnp.dtype) -> marginal.Marginal:
  """The prior pushed through the flow, on links of this type."""
  return marginal.make(priors.make(choice.prior, theory, dtype), flow(choice, theory))


def finer(choice: Choice) -> Choice | None:
  """The same flow with half the integrator's step; None for flows without steps."""
  refine = kind(choice.name).finer
  return dataclasses.replace(choice, settings=refine(choice.settings)) if refine else None
