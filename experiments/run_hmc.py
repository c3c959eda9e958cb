"""Hybrid Monte Carlo in independent streams: `python -m experiments.run_hmc --preset=...`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import run_hmc


def main() -> None:
  """Command line."""
  configuration.run(run_hmc.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
