"""Train the marginal flow by reverse KL: `python -m experiments.train_marginal --config.training.num_steps=...`.

Writes training.jsonl, training.png and checkpoints/.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["train_marginal"].run(sys.argv)


if __name__ == "__main__":
  main()
