"""Coverage of every error bar that reports print: `python -m experiments.coverage --output=runs/coverage`.

Writes coverage.json and coverage.md.
"""

import sys

from flowqcd import tools


def main() -> None:
  """Command line."""
  tools.coverage(sys.argv)


if __name__ == "__main__":
  main()
