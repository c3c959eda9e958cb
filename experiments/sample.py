"""Draw configurations from the marginal flow with exact weights: `python -m experiments.sample --preset=...`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import sample


def main() -> None:
  """Command line."""
  configuration.run(sample.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
