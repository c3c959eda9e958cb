"""Train the conditional model with the marginal one fixed, after that one: `python -m experiments.train_conditional`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import train_conditional


def main() -> None:
  """Command line."""
  configuration.run(train_conditional.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
