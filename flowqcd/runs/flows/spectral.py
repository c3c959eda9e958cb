"""Spectral coupling layers."""

from __future__ import annotations

from flowqcd.flows import coupling, masks
from flowqcd.runs.flows.kind import Kind
from flowqcd.runs.theories import Theory
from flowqcd.types import Flow


def _make(layers: coupling.Config, theory: Theory) -> Flow:
  return coupling.make(layers, theory.nc, theory.lattice)


def _check(layers: coupling.Config, theory: Theory) -> None:
  masks.stack(masks.layers(layers.layers, len(theory.lattice), layers.width), theory.lattice)


KIND = Kind("coupling", coupling.Config, _make, _check)
