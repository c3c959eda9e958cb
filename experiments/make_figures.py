"""Figures, report and summary of a measured run: `python -m experiments.make_figures --preset=...`.

Writes figures as PNG and PDF, summary.json and report.md.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["make_figures"].run(sys.argv)


if __name__ == "__main__":
  main()
