"""What a run is: its settings, its folder, its devices."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.runs import (
    conditionals,
    families,
    flags,
    flows,
    folder,
    gauge_actions,
    marginals,
    own,
    priors,
    products,
    progress,
    session,
    stopping,
    theories,
    trajectories,
    tree,
  )

__all__ = [
  "conditionals",
  "families",
  "flags",
  "flows",
  "folder",
  "gauge_actions",
  "marginals",
  "own",
  "priors",
  "products",
  "progress",
  "session",
  "stopping",
  "theories",
  "trajectories",
  "tree",
]
__getattr__, __dir__ = submodules(__name__, __all__)
