"""Kinds of flows of links, one file a kind; `flowqcd.runs.marginals` lists them."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.runs.flows import custom, kind, residual, spectral, trivializing

__all__ = ["custom", "kind", "residual", "spectral", "trivializing"]
__getattr__, __dir__ = submodules(__name__, __all__)
