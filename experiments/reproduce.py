"""The whole chain: train, sample, HMC, measure, figures. `python -m experiments.reproduce --preset=...`.

Writes what all these stages write. Every stage goes on from what it finds in the run's folder, so the same command after a
kill finishes the run.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["reproduce"].run(sys.argv)


if __name__ == "__main__":
  main()
