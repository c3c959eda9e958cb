"""Objectives, optimisers and the training loop."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.training import continuity, loop, natural, objectives, optimizer

__all__ = ["continuity", "loop", "natural", "objectives", "optimizer"]
__getattr__, __dir__ = submodules(__name__, __all__)
