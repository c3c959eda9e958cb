"""Configurations of a run as files for other codes: `python -m experiments.export RUN --to=FOLDER`.

--format=ildg, nersc or hdf5, with a table of log weights; --chain for an unweighted chain.
"""

import sys

from flowqcd import tools


def main() -> None:
  """Command line."""
  tools.export(sys.argv)


if __name__ == "__main__":
  main()
