"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


class FieldFileError(ValueError):
  """A gauge-field file is not what it should be; the message names the file and what is wrong."""


_TEMPORARY = ".tmp"


def is_vacant(folder: str | os.PathLike) -> bool:
  """True where there is no folder, or nothing in it but what a kill in mid-write left behind."""
  folder = pathlib.Path(folder)
  if not folder.exists():
    return True
  return all(item.name.startswith(".") and item.suffix == _TEMPORARY for item in folder.iterdir())


@contextlib.contextmanager
def atomic(path: str | os.PathLike, overwrite: bool = False) -> Iterator[BinaryIO]:
  """A binary file handle whose content replaces `path` when the block ends, and is dropped if it raises.

  Written beside the target, flushed to disk, then renamed, which is atomic. Raises FileExistsError unless overwrite.
  """
  path = pathlib.Path(path)
  if path.exists() and not overwrite:
    raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
  temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
  try:
    with open(temporary, "wb") as handle:
      yield handle
      handle.flush()
      os.fsync(handle.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
