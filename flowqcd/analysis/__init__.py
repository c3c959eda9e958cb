"""Weights, statistics and figures."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.analysis import coverage, figures, histograms, statistics, trust, weights

__all__ = ["coverage", "figures", "histograms", "statistics", "trust", "weights"]
__getattr__, __dir__ = submodules(__name__, __all__)
