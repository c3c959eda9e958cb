"""Check and mend stored ensembles: `python -m experiments.ensembles verify PATH`, or `repair PATH`.

verify writes nothing; repair moves damaged parts, and what hangs on them, into a folder `damaged-<time>` beside them.
"""

import sys

from flowqcd import tools


def main() -> None:
  """Command line."""
  tools.ensembles(sys.argv)


if __name__ == "__main__":
  main()
