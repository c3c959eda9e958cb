"""Figures, report and summary of a measured run: `python -m experiments.make_figures --preset=...`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import make_figures


def main() -> None:
  """Command line."""
  configuration.run(make_figures.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
