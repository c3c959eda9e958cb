"""Metrics as JSON lines, and small JSON files written whole."""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from flowqcd.io import files


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


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Write a JSON file atomically, replacing an older one; numbers that are not finite become null."""
  with files.atomic(path, overwrite=True) as handle:
    handle.write((json.dumps(_plain(value), indent=2) + "\n").encode())


def read_json(path: str | os.PathLike) -> Any:
  """The content of a JSON file. Raises ValueError naming the file if it is not JSON."""
  try:
    return json.loads(pathlib.Path(path).read_text())
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is not valid JSON: {error}") from None


class Writer:
  """Appends one JSON object a line, {"step": .., ...}, flushed at once.

  resume_step: keep lines up to that step and drop later ones, and a torn last line, of a run that was killed.
  """

  def __init__(self, path: str | os.PathLike, resume_step: int = 0) -> None:
    self._path, self._last = pathlib.Path(path), {}
    if self._path.exists():
      kept = [row for row in _rows(self._path) if row["step"] <= resume_step]
      with files.atomic(self._path, overwrite=True) as handle:
        handle.write("".join(json.dumps(row) + "\n" for row in kept).encode())
      self._last = kept[-1] if kept else {}

  def last(self, name: str, default: float) -> float:
    """A metric of the last line that was kept on opening, or the default where there is none."""
    return self._last.get(name, default)

  def write(self, step: int, **scalars: float) -> None:
    """Append the metrics of a step."""
    with open(self._path, "a") as handle:
      handle.write(json.dumps({"step": step} | _plain(scalars)) + "\n")


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
  rows = []
  lines = path.read_text().split("\n")
  for i, line in enumerate(lines):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
      row["step"] = int(row["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
      if i >= len(lines) - 1:
        break  # Torn by a kill in mid-write: the last line has no newline yet.
      raise ValueError(f"{path}: line {i + 1} is not a metrics record") from None
    rows.append(row)
  return rows


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Columns by name, NaN where a step has no such metric or it was not finite. A torn last line is left out."""
  rows = _rows(pathlib.Path(path))
  names = dict.fromkeys(name for row in rows for name in row)
  number = lambda v: float("nan") if v is None else float(v)
  return {name: np.array([number(row.get(name)) for row in rows]) for name in names}
