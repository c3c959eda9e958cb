"""Markov chains of pure gauge theory against each other: `python -m experiments.compare_chains --preset=su3_4d`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import compare_chains


def main() -> None:
  """Command line."""
  configuration.run(compare_chains.run, presets.PRESETS, "su3_4d")


if __name__ == "__main__":
  main()
