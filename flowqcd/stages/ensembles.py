"""Check and mend stored ensembles: `verify PATH`, or `repair PATH`.

PATH is a run's folder, an ensemble's, or an exported file. verify lists every part as ok, damaged, missing, or without a
digest (of an earlier version; then damaged only where HDF5 cannot read it), and ends with status 1 where a part is damaged
or missing. repair moves that part and all after it into a folder `damaged-<time>` beside them, with what was measured on
them; nothing is deleted. The run, started again, goes on from the part before.
"""

from __future__ import annotations

import pathlib

from flowqcd.io import ensembles, locks
from flowqcd.runs import progress

_DERIVED = (
  "wilson_flow.json",
  "summary.json",
  "annealed.json",
  "chains.json",
  "model.safetensors",
  "conditional.safetensors",
)
"""What a run's folder may hold that was computed from its ensembles."""


def verify(path: pathlib.Path) -> bool:
  """List the parts below a path on stdout; True where none is damaged or missing. Raises EnsembleError for no ensemble."""
  if path.is_file():
    states = {str(path): ensembles.state(path)}
  else:
    states = {str(store.path / name): state for store in _stores(path) for name, state in store.states().items()}
  for name, state in states.items():
    progress.show(f"{state:9}  {name}")
  return not {"damaged", "missing"} & set(states.values())


def repair(path: pathlib.Path) -> list[ensembles.Repair]:
  """Move damaged parts and all that depends on them aside, and say so. Raises LockedError where the run is at work."""
  stores = _stores(path)
  run = stores[0].path.parent
  held = [locks.hold(run)] if (run / "config.json").exists() else []
  done = []
  try:
    for store in stores:
      done += _repaired(store)
  finally:
    for store in stores:
      store.close()
    for lock in held:
      lock.release()
  moved = [result for result in done if result.moved]
  derived = [name for name in _DERIVED if (run / name).exists()]
  if moved and derived:
    progress.show(f"{run}: {', '.join(derived)} may come from what was moved; make them anew once the run has gone on")
  if not moved:
    progress.show(f"{path}: no part is damaged")
  return moved


def _repaired(store: ensembles.Ensemble) -> list[ensembles.Repair]:
  """What was done to an ensemble, and to what was measured on it: row by row, so that it goes with its parts."""
  done = [store.repair()]
  measured = store.path.with_name(f"{store.path.name}-measured")
  if done[0].moved and (measured / "ensemble.json").exists():
    beside = ensembles.Ensemble.open(measured)
    done.append(beside.cut(done[0].kept))
    beside.close()
  for result in done:
    if result.moved:
      progress.show(
        f"{result.aside.parent}: {result.moved[0]} to {result.moved[-1]} moved to {result.aside.name}; {result.kept} kept"
      )
  return done


def _stores(path: pathlib.Path) -> list[ensembles.Ensemble]:
  """Those of a run's folder, or the one that it is. Raises EnsembleError where there is none."""
  records = [path / "ensemble.json"] if (path / "ensemble.json").exists() else sorted(path.glob("*/ensemble.json"))
  if not records:
    raise ensembles.EnsembleError(f"{path} is no ensemble, and no folder of ensembles")
  return [ensembles.Ensemble.open(record.parent) for record in records]
