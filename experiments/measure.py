"""Measure the observables of both ensembles: `python -m experiments.measure --preset=...`.

Writes flow-measured/, hmc-measured/ and wilson_flow.json, after what sample and run_hmc write.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["measure"].run(sys.argv)


if __name__ == "__main__":
  main()
