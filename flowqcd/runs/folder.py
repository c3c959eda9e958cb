"""A run's folder: whose it is, by which settings, and what is kept there.

What is stored there decides which settings may change: `flowqcd.runs.products`. Where nothing is stored yet, all may.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import time
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flowqcd import hosts
from flowqcd.io import ensembles, files, locks, metrics, shared
from flowqcd.runs import products, progress, session
from flowqcd.runs.products import Difference, Product
from flowqcd.types import Key


@dataclasses.dataclass(frozen=True)
class Run:
  """A folder that this process holds, and what all stages of a run share.

  seed: of all randomness. precision: single or double. config: {field: value} of all settings. defaults: {field: value}
  that a run has which was made before the field. products: {name: what the folder may hold}; an ensemble has its own name
  there. free: fields that never matter to what is stored. aside: what other settings made is moved aside, not refused.
  """

  folder: pathlib.Path
  seed: int
  precision: str
  config: Mapping[str, Any]
  defaults: Mapping[str, Any]
  products: Mapping[str, Product]
  free: Collection[str] = ()
  aside: bool = False

  @property
  def dtype(self) -> jnp.dtype:
    """The complex working dtype."""
    return session.dtype(self.precision)

  def key(self, salt: int) -> Key:
    """Random numbers of this run for one purpose."""
    return jax.random.fold_in(jax.random.key(self.seed), salt)

  def store(self, name: str) -> ensembles.Ensemble:
    """The ensemble of this name, opened or created; settings that only ask for more are taken over.

    Raises EnsembleError, naming fields, where its rows come from other settings.
    """
    own = hosts.on_first(lambda: self._own(name))
    return own if jax.process_count() == 1 else shared.OfFirst(self.folder / name, dict(self.config), own)

  def _own(self, name: str) -> ensembles.Ensemble:
    path, ensemble = self.folder / name, ensembles.Ensemble
    store = ensemble.open(path) if (path / "ensemble.json").exists() else ensemble.create(path, self.config)
    if store.num_parts:
      found = self.differing(name, store.config)
      if found:
        raise ensembles.EnsembleError(f"{store.path} was made with other settings ({_listed(found)})")
    store.describe(self.config)
    return store

  def record(self, name: str) -> dict[str, Any] | None:
    """The fields of a JSON record that the folder holds, None where it has none of this name."""
    path = self.folder / name
    return hosts.shared(lambda: metrics.read_json(path) if path.exists() else None)

  def write(self, name: str, fields: Mapping[str, Any]) -> None:
    """Write a JSON record, replacing an older one."""
    hosts.on_first(lambda: metrics.write_json(self.folder / name, fields))

  def differing(self, name: str, settings: Mapping[str, Any]) -> list[Difference]:
    """What matters to a product and is another with this run's settings than with those; all does to an unknown one."""
    every = Product((name,), tuple(field for field in self.config if field not in self.free))
    return products.differing(self.products.get(name, every), settings, self.config, self.defaults, self.free)


def claim(run: Run) -> Run:
  """Make this process the holder of the run's folder until it ends, again as often as need be; created if need be.

  What the folder holds already must come from the run's settings, but for those that ask for more, or that nothing there
  hangs on. Fields that its configuration lacks, since they are newer, count as their defaults. Raises ValueError, naming
  fields and what hangs on them, for other settings, unless run.aside: then that is moved into a folder aside-<time>.
  Raises LockedError where another process is at work there. On several hosts the first process alone holds it; where it
  raises, so do the others.
  """
  hosts.on_first(lambda: _claim(run))
  return run


def _claim(run: Run) -> None:
  _examine(run)
  run.folder.mkdir(parents=True, exist_ok=True)
  locks.hold(run.folder)
  # Looked at again: another process may have claimed it before it was held.
  conflicts, stale = _examine(run)
  for name in stale:
    products.discard(run.products[name], run.folder)
  if conflicts:
    _move_aside(run, conflicts)
  if _settings(run) != run.config:
    metrics.write_json(run.folder / "config.json", run.config)


def _settings(run: Run) -> dict[str, Any] | None:
  """Those that the folder was last used with; None where it is vacant. Raises ValueError where it is something else's."""
  record = run.folder / "config.json"
  if not record.exists() and files.is_vacant(run.folder):
    return None
  found = metrics.read_json(record) if record.exists() else {}
  if not run.config.keys() & found.keys():
    raise ValueError(f"{run.folder} is not empty and not a run of this program; choose another --config.output")
  return found


def _examine(run: Run) -> tuple[dict[str, list[Difference]], list[str]]:
  """{product: what other settings it was made with}, and quick ones that must be made anew. Writes nothing.

  Raises ValueError where there are differences and they are not to be moved aside, or the folder is something else's.
  """
  settings, conflicts, stale = _settings(run), {}, []
  if settings is None:
    return conflicts, stale
  for name, product in run.products.items():
    found = run.differing(name, settings) if products.holds(product, run.folder) else []
    if found and product.quick:
      stale.append(name)
    elif found:
      conflicts[name] = found
  if conflicts and not run.aside:
    every = {difference.field: difference for found in conflicts.values() for difference in found}
    raise ValueError(
      f"{run.folder} holds {', '.join(conflicts)} of other settings ({_listed(list(every.values()))}); choose another "
      "--config.output, or add --config.aside=true, which moves that into a folder aside-<time> there and makes it anew"
    )
  return conflicts, stale


def _listed(found: list[Difference]) -> str:
  more = f", and {len(found) - 4} more" if len(found) > 4 else ""
  return ", ".join(map(str, found[:4])) + more


def _move_aside(run: Run, names: Collection[str]) -> None:
  stamp = time.strftime("aside-%Y%m%d-%H%M%S")
  places = map(run.folder.joinpath, itertools.chain([stamp], (f"{stamp}-{i}" for i in itertools.count(2))))
  aside = next(place for place in places if not place.exists())
  moved = products.move([run.products[name] for name in names], run.folder, aside)
  progress.say(f"{aside}: {', '.join(moved)}, of other settings")


def require_growth(setting: str, asked: int, there: int, what: str) -> None:
  """Raise ValueError where less is asked for than is there."""
  if asked < there:
    raise ValueError(
      f"{setting} = {asked}, but {what} has {there} already: ask for at least as many, or choose another --config.output"
    )


def recorded(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """{field: value} as JSON gives it back."""
  return json.loads(json.dumps(dict(leaves)))
