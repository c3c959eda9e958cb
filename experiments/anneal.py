"""Annealed importance sampling from a flow to a stronger coupling: `python -m experiments.anneal --preset=su3_4d ...`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import anneal


def main() -> None:
  """Command line."""
  configuration.run(anneal.run, presets.PRESETS, "su3_4d")


if __name__ == "__main__":
  main()
