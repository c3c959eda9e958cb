"""The whole chain: train, sample, HMC, measure, figures. `python -m experiments.reproduce --preset=...`.

Every stage goes on from what it finds in the run's folder, so the same command after a kill finishes the run.
"""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import reproduce


def main() -> None:
  """Command line."""
  configuration.run(reproduce.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
