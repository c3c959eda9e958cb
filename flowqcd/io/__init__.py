"""Files: gauge fields, ensembles, checkpoints and metrics."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.io import (
    checkpoint,
    digests,
    ensembles,
    fields,
    files,
    formats,
    ildg,
    lime,
    locks,
    metrics,
    milc,
    nersc,
    openqcd,
    scidac,
    source,
  )

__all__ = [
  "checkpoint",
  "digests",
  "ensembles",
  "fields",
  "files",
  "formats",
  "ildg",
  "lime",
  "locks",
  "metrics",
  "milc",
  "nersc",
  "openqcd",
  "scidac",
  "source",
]
__getattr__, __dir__ = submodules(__name__, __all__)
