"""The lattice: groups, sites, loops, spin and integrators."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.lattice import (
    algebra,
    checkerboard,
    colouring,
    exponential,
    fusion,
    group,
    integrators,
    jacobi,
    layout,
    linear,
    loops,
    precision,
    rectangles,
    sites,
    spin,
  )

__all__ = [
  "algebra",
  "checkerboard",
  "colouring",
  "exponential",
  "fusion",
  "group",
  "integrators",
  "jacobi",
  "layout",
  "linear",
  "loops",
  "precision",
  "rectangles",
  "sites",
  "spin",
]
__getattr__, __dir__ = submodules(__name__, __all__)
