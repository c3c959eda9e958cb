"""Trained models as files with cards, after sampling: `python -m experiments.publish --preset=su3_4d`.

Writes model.safetensors and conditional.safetensors.
"""

import sys

from flowqcd import command_line


def main() -> None:
  """Command line."""
  command_line.COMMANDS["publish"].run(sys.argv)


if __name__ == "__main__":
  main()
