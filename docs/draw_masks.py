"""Draw the masks of one sweep of coupling layers: `python docs/draw_masks.py --config.picture=docs/masks.png`."""

from __future__ import annotations

import dataclasses
import pathlib
import sys

from flowqcd.analysis import figures
from flowqcd.flows import masks
from flowqcd.io import files
from flowqcd.runs import flags
from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Drawing:
  """A picture of a sweep, after which every link has been updated once."""

  lattice: tuple[int, ...] = field((4, 4, 4, 4), "Extents.")
  width: int = field(4, "Period of the masks.")
  turn: int = field(1, "Active plaquettes lie in the planes (o_0, o_0 + turn).")
  picture: str = field("masks.png", "File to write; an older one is replaced.")


def run(config: Drawing) -> None:
  """Write the picture. Raises MaskError where extents and width do not fit."""
  sweep = masks.sweep(len(config.lattice), config.width, turn=config.turn)
  stacked = masks.stack(sweep, config.lattice)
  titles = [f"link {c.orientations[0]}, plane {c.orientations[:2]}, phase {c.active_phase}" for c in sweep]
  figure = figures.mask_sweep(stacked.active, stacked.frozen, titles)
  with files.atomic(pathlib.Path(config.picture), overwrite=True) as handle:
    figure.savefig(handle, format="png", dpi=110)


def main() -> None:
  """Command line."""
  flags.run(run, flags.Presets({"paper": Drawing()}, "paper"), sys.argv)


if __name__ == "__main__":
  main()
