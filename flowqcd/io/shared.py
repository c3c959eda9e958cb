"""Ensembles in programs of several processes, of which the first one alone has the disk."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import h5py
import numpy as np

from flowqcd import hosts
from flowqcd.io import ensembles

T = TypeVar("T")


class OfFirst(ensembles.Ensemble):
  """An ensemble on the first process's disk, for loops that all processes are in: what is read there reaches all.

  So all processes call the same methods in the same order, len() and `names` among them, or wait for each other. `append`
  and what reads columns are meant; the others (export, describe, repair, cut) are for `Ensemble.open` in one process.
  """

  def __init__(self, path: pathlib.Path, config: dict[str, Any], own: ensembles.Ensemble | None) -> None:
    super().__init__(path, config)
    self._own = own  # On the first process alone.

  @property
  def num_parts(self) -> int:
    """As of `Ensemble`, on the first process's disk."""
    return hosts.shared(lambda: self._there.num_parts)

  @property
  def _there(self) -> ensembles.Ensemble:
    assert self._own is not None
    return self._own

  def _read(self, index: int, what: Callable[[h5py.File], T]) -> T:
    return hosts.shared(lambda: self._there._read(index, what))

  def append(self, columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None) -> None:
    """As of `Ensemble`, on the first process alone."""
    hosts.on_first(lambda: self._there.append(columns, attributes))
