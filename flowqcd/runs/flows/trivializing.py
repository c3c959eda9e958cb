"""The trivializing flow, from its analytic coefficients."""

from __future__ import annotations

import dataclasses

from flowqcd.flows import trivializing, wilson_loops
from flowqcd.runs import theories
from flowqcd.runs.flows.kind import Kind
from flowqcd.types import Flow


def _make(flow: trivializing.Config, theory: theories.Theory) -> Flow:
  return trivializing.make(flow, theories.flow_target(theory), theory.nc, theory.lattice)


def _check(flow: trivializing.Config, theory: theories.Theory) -> None:
  if min(theory.lattice) < 3:
    raise ValueError(f"the trivializing flow needs extents of at least 3, not {theory.lattice}")
  wilson_loops.check(flow.loops, theory.lattice, beside_pairs=flow.order == 2)


def _finer(flow: trivializing.Config) -> trivializing.Config:
  return dataclasses.replace(flow, steps=2 * flow.steps)


KIND = Kind("flow", trivializing.Config, _make, _check, _finer)
