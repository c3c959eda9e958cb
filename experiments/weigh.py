"""Weights of configuration files under a trained flow: `python -m experiments.weigh FILES... --model=NAME`.

A line for each with ln q and ln w, --json for machines. Writes nothing.
"""

import sys

from flowqcd import tools


def main() -> None:
  """Command line."""
  tools.weigh(sys.argv)


if __name__ == "__main__":
  main()
