"""Metrics as JSON lines, and small JSON files written whole."""

from __future__ import annotations

import json
import math
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowqcd.io import digests, files


def _plain(value: Any) -> Any:
  """A JSON value; JSON has no NaN and no infinity, so they become null."""
  if isinstance(value, (np.ndarray, np.generic)):
    value = value.tolist()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v) for v in value]
  return value


def write_json(path: str | os.PathLike, value: Mapping[str, Any]) -> None:
  """Write a JSON object atomically, replacing an older one; numbers that are not finite become null.

  Its first field is `sha256`, of the others. Raises ValueError where the object has a field of that name.
  """
  with files.atomic(path, overwrite=True) as handle:
    # On a line of its own with the bracket, which tells it from records of versions without digests.
    handle.write((_START + json.dumps(_sealed(value), indent=2).lstrip("{\n ") + "\n").encode())


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """The fields of `write_json`, without its digest. Raises StoreError naming the file where it is damaged or was altered.

  A record of a version without digests is read with a warning.
  """
  path = pathlib.Path(path)
  try:
    text = path.read_text()
    record = _verified(text, "\n")
  except (ValueError, RecursionError) as error:
    raise files.StoreError(f"{path} is damaged or was altered: {error}; restore it, or move it away") from None
  if digests.KEY not in record:
    warnings.warn(f"{path} has no digest, as earlier versions wrote it: it is read unverified", stacklevel=2)
  return {name: x for name, x in record.items() if name != digests.KEY}


_START = "{"
"""Of records with a digest, which goes on with the field's name; those without go on with a new line or `"step"`."""


def _sealed(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
  """The record with its digest as the first field; before: that of the line before."""
  if digests.KEY in value:
    raise ValueError(f"a record has a field '{digests.KEY}' of its own")
  plain = _plain(dict(value))
  return {digests.KEY: digests.of_record(plain, before)} | plain


def _verified(text: str, unsealed: str, before: str = "") -> dict[str, Any]:
  """A record, its digest included. Raises ValueError unless it agrees; without one, unless `unsealed` follows the bracket.

  So no damage to the digest's name makes a record pass for an earlier version's.
  """
  record = json.loads(text)
  if not isinstance(record, dict):
    raise ValueError("it is no JSON object")
  if digests.KEY not in record:
    if not text.startswith(_START + unsealed):
      raise ValueError("it has no digest")
  elif record[digests.KEY] != digests.of_record(record, before):
    raise ValueError("its content is not that of its SHA-256")
  return record


class Writer:
  """Appends one JSON object a line, {"sha256": .., "step": .., ...}, flushed at once; digests cover all lines before.

  resume_step: keep lines up to that step and drop later ones, and a torn last line, of a run that was killed. Raises
  StoreError where a line is damaged.
  """

  def __init__(self, path: str | os.PathLike, resume_step: int = 0) -> None:
    self._path, self._last, self._digest = pathlib.Path(path), {}, ""
    if self._path.exists():
      kept = [row for row in _rows(self._path) if row["step"] <= resume_step]
      with files.atomic(self._path, overwrite=True) as handle:
        handle.write("".join(map(self._line, kept)).encode())
      self._last = kept[-1] if kept else {}

  def last(self, name: str, default: float) -> float:
    """A metric of the last line that was kept on opening, or the default where there is none."""
    return self._last.get(name, default)

  def write(self, step: int, **scalars: float) -> None:
    """Append the metrics of a step."""
    with files.named(self._path), open(self._path, "a") as handle:
      handle.write(self._line({"step": step} | scalars))

  def _line(self, row: Mapping[str, Any]) -> str:
    sealed = _sealed(row, self._digest)
    self._digest = sealed[digests.KEY]
    return json.dumps(sealed) + "\n"


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  rows, unsealed, before = [], False, ""
  lines = path.read_bytes().split(b"\n")
  for i, line in enumerate(lines):
    if not line.strip():
      continue
    try:
      row = _verified(line.decode(), '"step"', before)
      row["step"] = int(row["step"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      if i >= len(lines) - 1:
        break  # Torn by a kill in mid-write: the last line has no newline yet.
      raise files.StoreError(f"{path}: line {i + 1} is not a metrics record ({error}); move the file away") from None
    before = row.pop(digests.KEY, "")
    unsealed |= not before
    rows.append(row)
  if unsealed:
    warnings.warn(
      f"{path} has lines without digests, as earlier versions wrote them: they are unverified", stacklevel=3
    )
  return rows


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Columns by name, NaN where a step has no such metric or it was not finite. A torn last line is left out.

  Raises StoreError naming a damaged line.
  """
  path = pathlib.Path(path)
  rows = _rows(path)
  names = dict.fromkeys(name for row in rows for name in row)
  number = lambda v: float("nan") if v is None else float(v)
  try:
    return {name: np.array([number(row.get(name)) for row in rows]) for name in names}
  except (TypeError, ValueError) as error:
    raise files.StoreError(f"{path} has metrics that are no numbers ({error})") from None
