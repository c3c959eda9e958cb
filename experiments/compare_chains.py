"""Markov chains of pure gauge theory against each other: `python -m experiments.compare_chains --preset=su3_4d`.

Writes hmc/, heatbath/ and link_flow/, what is measured on each, chains.json, chains.md and chains.png.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["compare_chains"].run(sys.argv)


if __name__ == "__main__":
  main()
