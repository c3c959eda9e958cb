"""What a training step costs: `python -m experiments.profile_training --preset=paper --config.training.batch=8`.

Compiles and runs the gradient of one chunk on one device, and its parts by themselves, and prints a table; stores nothing.
"""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import profile_training


def main() -> None:
  """Command line."""
  configuration.run(profile_training.run, presets.PRESETS, "paper")


if __name__ == "__main__":
  main()
