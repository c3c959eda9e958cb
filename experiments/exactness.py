"""Every sampler against answers that are known: `python -m experiments.exactness --minutes=30`.

Writes exactness.json, and ends with status 1 where a sampler is wrong.
"""

import sys

from flowqcd import tools


def main() -> None:
  """Command line."""
  tools.exactness(sys.argv)


if __name__ == "__main__":
  main()
