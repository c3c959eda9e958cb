"""Ensembles of configurations with weights, observables and provenance, in HDF5.

An ensemble is a folder: `ensemble.json` with the configuration that made it, and part-000000.h5, part-000001.h5, ... each
written beside and renamed into place. HDF5 files that are appended to can be lost whole to a kill; these cannot, and a
kill costs the part in flight.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from flowqcd.io import files, metrics

_VERSION = 1


class EnsembleError(ValueError):
  """An ensemble on disk is damaged, or not the one that was asked for."""


class Ensemble:
  """Rows [n, ...] under several names, stored in parts. Use `create`, `open` or `open_or_create`."""

  def __init__(self, path: pathlib.Path, config: dict[str, Any]) -> None:
    self.path, self.config = path, config

  @classmethod
  def create(cls, path: str | os.PathLike, config: Mapping[str, Any]) -> Ensemble:
    """A new, empty ensemble. Raises FileExistsError if the folder holds anything."""
    path = pathlib.Path(path)
    if not files.is_vacant(path):
      raise FileExistsError(f"{path} is not empty; an ensemble needs a folder of its own")
    path.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(dict(config)))
    metrics.write_json(path / "ensemble.json", {"version": _VERSION, "config": plain})
    return cls(path, plain)

  @classmethod
  def open(cls, path: str | os.PathLike, config: Mapping[str, Any] | None = None) -> Ensemble:
    """An existing ensemble. Raises EnsembleError if it is none, or of another configuration (naming the keys)."""
    path = pathlib.Path(path)
    record = path / "ensemble.json"
    if not record.exists():
      raise EnsembleError(f"{path} is not an ensemble: it has no ensemble.json")
    head = metrics.read_json(record)
    if not isinstance(head, dict) or head.get("version") != _VERSION or "config" not in head:
      raise EnsembleError(f"{record} is not of version {_VERSION} of this format")
    found = head["config"]
    if config is not None:
      mine = json.loads(json.dumps(dict(config)))
      differing = sorted(k for k in mine.keys() | found.keys() if mine.get(k) != found.get(k))
      if differing:
        raise EnsembleError(f"{path} was made with other values of {', '.join(differing)}")
    for stale in path.glob(".*.tmp"):
      stale.unlink()  # Left by a kill in mid-write; never part of the ensemble.
    return cls(path, found)

  @classmethod
  def open_or_create(cls, path: str | os.PathLike, config: Mapping[str, Any]) -> Ensemble:
    """Open where there is one, create where there is none."""
    exists = (pathlib.Path(path) / "ensemble.json").exists()
    return cls.open(path, config) if exists else cls.create(path, config)

  def _part(self, index: int) -> pathlib.Path:
    return self.path / f"part-{index:06d}.h5"

  @property
  def num_parts(self) -> int:
    """Number of parts. Raises EnsembleError if one in the middle is missing."""
    found = sorted(self.path.glob("part-*.h5"))
    for i, part in enumerate(found):
      if part != self._part(i):
        raise EnsembleError(f"{self.path} has {part.name} but no {self._part(i).name}")
    return len(found)

  @property
  def names(self) -> list[str]:
    """Names of the columns; empty while there are no parts."""
    if not self.num_parts:
      return []
    with self._load(0) as part:
      return sorted(part)

  def _load(self, index: int) -> h5py.File:
    path = self._part(index)
    try:
      return h5py.File(path, "r")
    except OSError as error:
      raise EnsembleError(f"{path} is damaged and cannot be read ({error})") from None

  def append(self, columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None) -> None:
    """Add a part: {name: [rows, ...]}. Raises ValueError unless names, types and trailing shapes are those of before."""
    columns = {name: np.asarray(x) for name, x in columns.items()}
    index = self.num_parts
    if not columns or any(x.ndim == 0 for x in columns.values()):
      raise ValueError("a part needs named arrays with at least one axis")
    if index:
      self._check_like_first(columns)
    with files.atomic(self._part(index)) as handle, h5py.File(handle, "w") as part:
      for name, x in columns.items():
        part.create_dataset(name, data=x, fletcher32=x.size > 0)
      part.attrs.update(dict(attributes or {}))

  def _check_like_first(self, columns: Mapping[str, np.ndarray]) -> None:
    with self._load(0) as first:
      if set(first) != set(columns):
        raise ValueError(f"{self.path} has the columns {sorted(first)}, not {sorted(columns)}")
      for name, x in columns.items():
        old = first[name]
        if old.dtype != x.dtype or old.shape[1:] != x.shape[1:]:
          raise ValueError(
            f"{self.path}: '{name}' is {old.dtype} [n, {old.shape[1:]}], not {x.dtype} [n, {x.shape[1:]}]"
          )

  def read_part(self, index: int, name: str) -> np.ndarray:
    """One column of one part. Raises EnsembleError naming the file if it is damaged or has no such column."""
    with self._load(index) as part:
      if name not in part:
        raise EnsembleError(f"{self._part(index)} has no column '{name}', only {sorted(part)}")
      try:
        return part[name][()]
      except OSError as error:
        raise EnsembleError(f"{self._part(index)}: '{name}' is damaged ({error})") from None

  def read(self, name: str) -> np.ndarray:
    """A whole column, [rows, ...]. Raises EnsembleError for an empty ensemble."""
    if not self.num_parts:
      raise EnsembleError(f"{self.path} is empty")
    return np.concatenate([self.read_part(i, name) for i in range(self.num_parts)])

  def attributes(self, name: str) -> np.ndarray:
    """One attribute of every part, [parts]."""
    values = []
    for i in range(self.num_parts):
      with self._load(i) as part:
        values.append(part.attrs[name])
    return np.array(values)

  def part_lengths(self, name: str) -> list[int]:
    """Rows of a column in each part."""
    lengths = []
    for i in range(self.num_parts):
      with self._load(i) as part:
        lengths.append(part[name].shape[0])
    return lengths

  def __len__(self) -> int:
    """Rows of the column that comes first by name; all are alike unless a part says otherwise."""
    names = self.names
    return sum(self.part_lengths(names[0])) if names else 0

  def export(self, path: str | os.PathLike, overwrite: bool = False) -> None:
    """One plain HDF5 file with every column whole and the configuration as JSON in the attribute 'config'."""
    names = self.names
    with files.atomic(path, overwrite) as handle, h5py.File(handle, "w") as out:
      for name in names:
        out.create_dataset(name, data=self.read(name))
      out.attrs["config"] = json.dumps(self.config)
