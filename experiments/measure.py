"""Measure the observables of both ensembles: `python -m experiments.measure --preset=...`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import measure


def main() -> None:
  """Command line."""
  configuration.run(measure.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
