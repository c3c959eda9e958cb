"""A run's folder: whose it is, by which configuration, and what is kept there."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from flowqcd import distributed
from flowqcd.io import ensembles, files, locks, metrics
from flowqcd.runs import session
from flowqcd.types import Key


@dataclasses.dataclass(frozen=True)
class Run:
  """A folder that this process holds, and what all stages of a run share.

  seed: of all randomness. precision: single or double. config: {field: value} of all that decides what is computed.
  defaults: {field: value} that a run has which was made before the field.
  """

  folder: pathlib.Path
  seed: int
  precision: str
  config: Mapping[str, Any]
  defaults: Mapping[str, Any]

  @property
  def dtype(self) -> jnp.dtype:
    """The complex working dtype."""
    return session.dtype(self.precision)

  def key(self, salt: int) -> Key:
    """Random numbers of this run for one purpose."""
    return jax.random.fold_in(jax.random.key(self.seed), salt)

  def store(self, name: str) -> ensembles.Ensemble:
    """The ensemble of this name, opened or created. Raises EnsembleError, naming keys, for another configuration's."""
    return ensembles.Ensemble.open_or_create(self.folder / name, dict(self.config), dict(self.defaults))


def claim(run: Run) -> Run:
  """Make this process the holder of the run's folder until it ends, again as often as need be; created if need be.

  Fields that its configuration lacks, since they are newer, count as their defaults. Raises ValueError, naming the fields,
  where it holds another configuration, and LockedError where another process is at work there. On several hosts the first
  process alone holds it.
  """
  if not distributed.is_first_process():
    return run
  if not _is_claimed(run):
    run.folder.mkdir(parents=True, exist_ok=True)
  locks.hold(run.folder)
  # Looked at again: another process may have claimed it before it was held.
  if not _is_claimed(run):
    metrics.write_json(run.folder / "config.json", run.config)
  return run


def _is_claimed(run: Run) -> bool:
  """Whether the folder is this configuration's already. Raises ValueError where it is something else's; writes nothing."""
  folder, record, mine = run.folder, run.folder / "config.json", run.config
  if not record.exists() and files.is_vacant(folder):
    return False
  found = metrics.read_json(record) if record.exists() else {}
  if not mine.keys() & found.keys():
    raise ValueError(f"{folder} is not empty and not a run of this program; choose another --config.output")
  theirs = {**run.defaults, **found}
  differing = sorted(k for k in mine.keys() | theirs.keys() if (k in mine, mine.get(k)) != (k in theirs, theirs.get(k)))
  if differing:
    shown = lambda k: f"{theirs.get(k)} there{'' if k in found else ' by default'}"
    what = ", ".join(f"{k}: {shown(k)}, {mine.get(k, 'no such field')} here" for k in differing[:4])
    raise ValueError(f"{folder} belongs to another configuration ({what}); choose another --config.output")
  return True


def recorded(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """{field: value} as JSON gives it back."""
  return json.loads(json.dumps(dict(leaves)))
