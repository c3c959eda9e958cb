"""Residual layers."""

from __future__ import annotations

from flowqcd.flows import masks, residual
from flowqcd.runs import theories
from flowqcd.runs.flows.kind import Kind
from flowqcd.types import Flow


def _make(layers: residual.Config, theory: theories.Theory) -> Flow:
  return residual.make(layers, theories.plaquette_coupling(theory), theory.nc, theory.lattice)


def _check(layers: residual.Config, theory: theories.Theory) -> None:
  masks.stack(masks.sweep(len(theory.lattice), layers.width), theory.lattice)


KIND = Kind("residual", residual.Config, _make, _check)
