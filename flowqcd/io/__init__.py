"""Files: gauge fields, ensembles, checkpoints and metrics. `read` reads a configuration in any format."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.io import (
    checkpoint,
    configurations,
    digests,
    ensembles,
    fields,
    files,
    formats,
    hdf5,
    ildg,
    lime,
    locks,
    metrics,
    milc,
    nersc,
    openqcd,
    scidac,
    shared,
    source,
  )
  from flowqcd.io.configurations import read

__all__ = [
  "checkpoint",
  "configurations",
  "digests",
  "ensembles",
  "fields",
  "files",
  "formats",
  "hdf5",
  "ildg",
  "lime",
  "locks",
  "metrics",
  "milc",
  "nersc",
  "openqcd",
  "read",
  "scidac",
  "shared",
  "source",
]
__getattr__, __dir__ = submodules(__name__, __all__, {"read": "configurations"})
