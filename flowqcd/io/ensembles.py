"""Ensembles of configurations with weights, observables and provenance, in HDF5.

An ensemble is a folder: `ensemble.json` with the configuration that made it, and part-000000.h5, part-000001.h5, ... each
written beside and linked into place, with a digest of its content. HDF5 files that are appended to can be lost whole to a
kill; these cannot, and a kill costs the part in flight. One process writes, and any number read; readers write nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar

import h5py
import numpy as np

from flowqcd.io import digests, files, hdf5, locks, metrics

_VERSION = 1

T = TypeVar("T")
State = digests.State | Literal["missing", "locked"]
"""Of a part; locked: another process has it open for writing."""


class EnsembleError(files.StoreError):
  """An ensemble on disk is damaged, or not the one that was asked for."""


class Ensemble:
  """Rows [n, ...] under several names, stored in parts. Use `create`, `open` or `open_or_create`.

  An object that has created or appended holds the folder until `close`, or until its process ends. Parts are verified by
  their digests when this object first reads them. An ensemble that a version without digests began may have parts without,
  which are read with a warning; in any other such a part is damaged.
  """

  def __init__(self, path: pathlib.Path, config: dict[str, Any], digests: bool = True) -> None:
    self.path, self.config, self._all_have_digests = path, config, digests
    self._lock: locks.Lock | None = None
    self._verified: dict[int, tuple[int, ...]] = {}
    self._warned = False

  @classmethod
  def create(cls, path: str | os.PathLike, config: Mapping[str, Any]) -> Ensemble:
    """A new, empty ensemble. Raises FileExistsError if the folder holds anything, LockedError if another writes there."""
    path = pathlib.Path(path)
    if not files.is_vacant(path):
      raise FileExistsError(f"{path} is not empty; an ensemble needs a folder of its own")
    path.mkdir(parents=True, exist_ok=True)
    store = cls(path, json.loads(json.dumps(dict(config))))
    store._hold()
    # Another process may have made one since the first look, and have ended.
    if (path / "ensemble.json").exists():
      store.close()
      raise FileExistsError(f"{path} is not empty; an ensemble needs a folder of its own")
    store._write_head()
    return store

  @classmethod
  def open(cls, path: str | os.PathLike, config: Mapping[str, Any] | None = None) -> Ensemble:
    """An existing ensemble. Raises EnsembleError if it is none, or of another configuration (naming the keys)."""
    path = pathlib.Path(path)
    record = path / "ensemble.json"
    if not record.exists():
      raise EnsembleError(f"{path} is not an ensemble: it has no ensemble.json")
    head = metrics.read_json(record)
    if head.get("version") != _VERSION or not isinstance(head.get("config"), dict):
      raise EnsembleError(f"{record} is not of version {_VERSION} of this format")
    found = head["config"]
    if config is not None:
      mine = json.loads(json.dumps(dict(config)))
      keys = mine.keys() | found.keys()
      differing = sorted(k for k in keys if (k in mine, mine.get(k)) != (k in found, found.get(k)))
      if differing:
        raise EnsembleError(f"{path} was made with other values of {', '.join(differing)}")
    return cls(path, found, head.get("digests") is True)

  @classmethod
  def open_or_create(cls, path: str | os.PathLike, config: Mapping[str, Any]) -> Ensemble:
    """Open where there is one, create where there is none."""
    exists = (pathlib.Path(path) / "ensemble.json").exists()
    return cls.open(path, config) if exists else cls.create(path, config)

  def describe(self, config: Mapping[str, Any]) -> None:
    """Replace the configuration that is stored with it, as when a run is told to go on for longer.

    Raises LockedError where another process writes here.
    """
    config = json.loads(json.dumps(dict(config)))
    if config == self.config:
      return
    self._hold()
    self.config = config
    self._write_head()

  def _write_head(self) -> None:
    # Whether all parts have digests is a fact about those that are there.
    head = {"version": _VERSION} | ({"digests": True} if self._all_have_digests else {}) | {"config": self.config}
    metrics.write_json(self.path / "ensemble.json", head)

  def close(self) -> None:
    """Let other processes append. Reading, and appending again, remain possible."""
    if self._lock is not None:
      self._lock.release()
    self._lock = None

  def _hold(self) -> None:
    if self._lock is None:
      self._lock = locks.hold(self.path)

  def _part(self, index: int) -> pathlib.Path:
    return self.path / f"part-{index:06d}.h5"

  @property
  def num_parts(self) -> int:
    """Number of parts. Raises EnsembleError if one in the middle is missing."""
    found = sorted(self.path.glob("part-*.h5"))
    for i, part in enumerate(found):
      if part != self._part(i):
        raise EnsembleError(f"{self.path} has {part.name} but no {self._part(i).name}; {_remedy(self.path)}")
    return len(found)

  @property
  def names(self) -> list[str]:
    """Names of the columns; empty while there are no parts."""
    return self._read(0, lambda part: sorted(part)) if self.num_parts else []

  def _read(self, index: int, what: Callable[[h5py.File], T]) -> T:
    """What a function finds in a part, verified. Raises EnsembleError where it is damaged, OSError where the disk fails."""
    path = self._part(index)
    with files.named(path), open(path, "rb") as handle:
      self._verify(index, handle)
      try:
        with hdf5.opened(path) as part:
          return what(part)
      except Exception as error:  # h5py raises whatever it stumbles upon.
        if locks.is_locked(handle):
          raise EnsembleError(_locked(path)) from None
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise EnsembleError(f"{path} is damaged and cannot be read ({text}); {_remedy(self.path)}") from None

  def _judge(self, state: State) -> State:
    # A part whose user block is gone looks like one of an earlier version.
    return "damaged" if state == "no digest" and self._all_have_digests else state

  def _verify(self, index: int, handle: BinaryIO) -> None:
    found = os.fstat(handle.fileno())
    identity = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    if self._verified.get(index) == identity:
      return
    state = self._judge(digests.state(handle))
    if state == "damaged" and locks.is_locked(handle):
      # HDF5 marks a file that is open for writing, in the file, and takes the mark back on closing.
      raise EnsembleError(_locked(self._part(index)))
    if state == "damaged":
      raise EnsembleError(
        f"{self._part(index)} is damaged: its content is not that of its SHA-256; {_remedy(self.path)}"
      )
    if state == "no digest" and not self._warned:
      self._warned = True
      warnings.warn(
        f"{self._part(index)} has no digest, as earlier versions wrote it: it is read unverified", stacklevel=5
      )
    self._verified[index] = identity

  def append(self, columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None) -> None:
    """Add a part: {name: [rows, ...]}. Raises ValueError unless names, types and trailing shapes are those of before.

    Raises LockedError where another process writes here, OSError where the disk is full: no part is half there then.
    """
    columns = {name: np.asarray(x) for name, x in columns.items()}
    if not columns or any(x.ndim == 0 for x in columns.values()):
      raise ValueError("a part needs named arrays with at least one axis")
    self._hold()
    index = self.num_parts
    if index:
      self._check_like_first(columns)
    hdf5.write_columns(self._part(index), columns, dict(attributes or {}))

  def _check_like_first(self, columns: Mapping[str, np.ndarray]) -> None:
    first = self._read(0, lambda part: {name: (x.dtype, x.shape[1:]) for name, x in part.items()})
    if set(first) != set(columns):
      raise ValueError(f"{self.path} has the columns {sorted(first)}, not {sorted(columns)}")
    for name, x in columns.items():
      dtype, shape = first[name]
      if dtype != x.dtype or shape != x.shape[1:]:
        raise ValueError(f"{self.path}: '{name}' is {dtype} [n, {shape}], not {x.dtype} [n, {x.shape[1:]}]")

  def read_part(self, index: int, name: str) -> np.ndarray:
    """One column of one part. Raises EnsembleError naming the file if it is damaged or has no such column."""
    names, found = self._read(index, lambda part: (sorted(part), _column(part, name)[()] if name in part else None))
    if found is None:
      raise EnsembleError(f"{self._part(index)} has no column '{name}', only {names}")
    return found

  def read(self, name: str) -> np.ndarray:
    """A whole column, [rows, ...]. Raises EnsembleError for an empty ensemble."""
    if not self.num_parts:
      raise EnsembleError(f"{self.path} is empty")
    return np.concatenate([self.read_part(i, name) for i in range(self.num_parts)])

  def attributes(self, name: str) -> np.ndarray:
    """One attribute of every part, [parts]. Raises EnsembleError naming the part that lacks it."""
    return np.array([self._read(i, lambda part: part.attrs[name]) for i in range(self.num_parts)])

  def part_lengths(self, name: str) -> list[int]:
    """Rows of a column in each part. Raises EnsembleError naming the part that lacks it."""
    return [self._read(i, lambda part: len(_column(part, name))) for i in range(self.num_parts)]

  def __len__(self) -> int:
    """Rows of the column that comes first by name; all are alike unless a part says otherwise."""
    names = self.names
    return sum(self.part_lengths(names[0])) if names else 0

  def export(self, path: str | os.PathLike, overwrite: bool = False) -> None:
    """One plain HDF5 file with every column whole and the configuration as JSON in the attribute 'config'.

    It has a digest as parts have (`state`). Raises FileExistsError unless overwrite.
    """
    columns = {name: self.read(name) for name in self.names}
    hdf5.write_columns(path, columns, {"config": json.dumps(self.config)}, overwrite)

  def states(self) -> dict[str, State]:
    """{file name: state} of all parts, each read whole; without a digest, damaged where HDF5 cannot read all of it."""
    last = max((path.name for path in self.path.glob("part-[0-9]*.h5")), default="")
    names = itertools.takewhile(lambda name: name <= last, (self._part(i).name for i in itertools.count()))
    find = lambda path: self._judge(state(path)) if path.exists() else "missing"
    return {name: find(self.path / name) for name in names}

  def repair(self) -> Repair:
    """Move the first damaged or missing part, and all parts after it, into a folder `damaged-<time>` within this one.

    Nothing is deleted: the run goes on from the part before. Raises LockedError where another process writes here.
    """
    self._hold()
    found = self.states()
    whole = 0
    while found.get(self._part(whole).name) in ("ok", "no digest", "locked"):
      whole += 1
    return self.cut(whole)

  def cut(self, count: int) -> Repair:
    """Keep the first `count` parts; move the others as `repair` does."""
    self._hold()
    moved = [path for path in sorted(self.path.glob("part-*.h5")) if path.name >= self._part(count).name]
    stamp = time.strftime("damaged-%Y%m%d-%H%M%S")
    names = itertools.chain([stamp], (f"{stamp}-{i}" for i in itertools.count(2)))
    aside = next(path for path in map(self.path.joinpath, names) if not path.exists())
    if moved:
      aside.mkdir()
    # The last one first: a kill in between leaves no gap.
    for path in reversed(moved):
      os.rename(path, aside / path.name)
    return Repair(count, [path.name for path in moved], aside)


class Repair(NamedTuple):
  """How many parts an ensemble has kept, and which were moved where."""

  kept: int
  moved: list[str]
  aside: pathlib.Path


def state(path: str | os.PathLike) -> State:
  """Of a part or an exported file, by its digest; without one, damaged where HDF5 cannot read all of it."""
  path = pathlib.Path(path)
  with files.named(path), open(path, "rb") as handle:
    found = digests.state(handle)
    if found == "damaged" and locks.is_locked(handle):
      return "locked"
    if found != "no digest":
      return found
    try:
      with hdf5.opened(path) as part:
        for column in part.values():
          column[()]
    except Exception:  # h5py raises whatever it stumbles upon.
      return "locked" if locks.is_locked(handle) else "damaged"
    return found


def _column(part: h5py.File, name: str) -> h5py.Dataset:
  """Raises KeyError or TypeError where there is none: `Ensemble._read` says so of the part."""
  found = part[name]
  if not isinstance(found, h5py.Dataset):
    raise TypeError(f"'{name}' is no column")
  return found


def _locked(path: pathlib.Path) -> str:
  return f"{path} is locked: another process has it open for writing; close it there"


def _remedy(path: pathlib.Path) -> str:
  return f"python -m flowqcd ensembles verify {path} shows which parts are whole, and repair moves the others aside"
