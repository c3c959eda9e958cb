"""Train the marginal flow by reverse KL: `python -m experiments.train_marginal --config.training.num_steps=...`."""

from __future__ import annotations

from flowqcd.runs import configuration, presets
from flowqcd.stages import train_marginal


def main() -> None:
  """Command line."""
  configuration.run(train_marginal.run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
