"""What a training step costs: `python -m experiments.profile_training --preset=paper --config.training.batch=8`.

Prints a table; writes nothing.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["profile_training"].run(sys.argv)


if __name__ == "__main__":
  main()
