"""Trained models as files with cards, after sampling: `python -m experiments.publish --preset=su3_4d`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import publish


def main() -> None:
  """Command line."""
  configuration.run(publish.run, presets.PRESETS, "su3_4d")


if __name__ == "__main__":
  main()
