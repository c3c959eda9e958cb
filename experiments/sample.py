"""Draw configurations from the marginal flow with exact weights: `python -m experiments.sample --preset=...`.

Writes the ensemble flow/, flow_steps.json and haar.json, after what training writes.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["sample"].run(sys.argv)


if __name__ == "__main__":
  main()
