"""Check and mend stored ensembles: `python -m experiments.ensembles verify PATH`, or `repair PATH`.

PATH is a run's folder, an ensemble's, or an exported file. verify lists every part as ok, damaged, missing, or without a
digest (of an earlier version; then damaged only where HDF5 cannot read it), and ends with status 1 where a part is damaged
or missing. repair moves that part and all after it into a folder `damaged-<time>` beside them, with what was measured on
them; nothing is deleted. The run, started again, goes on from the part before.
"""

from __future__ import annotations

from flowqcd.runs import configuration
from flowqcd.stages import ensembles


def main() -> None:
  """Command line."""
  configuration.run_words(ensembles.run)


if __name__ == "__main__":
  main()
