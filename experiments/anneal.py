"""Annealed importance sampling from a flow to a stronger coupling: `python -m experiments.anneal --preset=su3_4d ...`.

Writes the ensemble annealed/, path.json, flow_steps.json and path_steps.json, annealed.json and annealed.png.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["anneal"].run(sys.argv)


if __name__ == "__main__":
  main()
