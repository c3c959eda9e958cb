"""Hybrid Monte Carlo in independent streams: `python -m experiments.run_hmc --preset=...`.

Writes the ensemble hmc/.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["run_hmc"].run(sys.argv)


if __name__ == "__main__":
  main()
