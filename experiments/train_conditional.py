"""Train the conditional model with the marginal one fixed, after that one: `python -m experiments.train_conditional`.

Writes what train_marginal writes, conditional.jsonl, conditional.png and conditional_checkpoints/.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["train_conditional"].run(sys.argv)


if __name__ == "__main__":
  main()
