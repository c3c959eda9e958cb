"""Check configuration files of any format: `python -m experiments.check FILES...`.

A line for each, --json for machines; ends with status 1 where one is damaged. Writes nothing.
"""

import sys

from flowqcd import tools


def main() -> None:
  """Command line."""
  tools.check(sys.argv)


if __name__ == "__main__":
  main()
