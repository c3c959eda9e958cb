"""Invertible gauge-equivariant maps with log-determinants."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.flows import (
    contract,
    conv,
    coupling,
    family,
    hopping,
    layers,
    loop_action,
    masks,
    ptcn,
    residual,
    spectral,
    spline,
    staples,
    transport,
    trivializing,
    wilson_loops,
  )

__all__ = [
  "contract",
  "conv",
  "coupling",
  "family",
  "hopping",
  "layers",
  "loop_action",
  "masks",
  "ptcn",
  "residual",
  "spectral",
  "spline",
  "staples",
  "transport",
  "trivializing",
  "wilson_loops",
]
__getattr__, __dir__ = submodules(__name__, __all__)
