"""SHA-256 of what is stored, kept where no kill separates it from the content: in the same file or folder.

An HDF5 file has it in a user block of 512 bytes before the data, which HDF5's own tools pass over. A JSON record has it as
its first field. A folder has it, of every file in it, in a record of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal

State = Literal["ok", "damaged", "no digest"]
"""Of a file: as it was written, not as it was written, or of a version that kept no digests."""

BLOCK = 512
"""Bytes of the user block."""
_PIECE = 1 << 20
_MAGIC = b"flowqcd HDF5, SHA-256 of what follows these 512 bytes: "
_HDF5 = b"\x89HDF\r\n\x1a\n"
KEY = "sha256"
"""The field of a JSON record."""


def block(image: bytes) -> bytes:
  """The user block [512] to write before an HDF5 file's image."""
  return _block(hashlib.sha256(image).hexdigest())


def _block(digest: str) -> bytes:
  return (_MAGIC + digest.encode() + b"\n").ljust(BLOCK, b"\0")


def state(handle: BinaryIO) -> State:
  """Of an HDF5 file, from its start; at several hundred MB/s."""
  handle.seek(0)
  head = handle.read(BLOCK)
  if head.startswith(_HDF5):
    return "no digest"
  rest = hashlib.sha256()
  while piece := handle.read(_PIECE):
    rest.update(piece)
  return "ok" if head == _block(rest.hexdigest()) else "damaged"


def of_record(record: Mapping[str, Any], before: str = "") -> str:
  """Of a JSON record's fields, whatever their order and layout; the digest's own field is left out.

  before: digest of the record that it follows, so that none goes missing and none is there twice.
  """
  rest = {name: value for name, value in record.items() if name != KEY}
  return hashlib.sha256((before + json.dumps(rest, sort_keys=True, separators=(",", ":"))).encode()).hexdigest()


def of_files(folder: str | os.PathLike, leave_out: str) -> dict[str, str]:
  """{path within the folder: digest} of all files below it but the one of this name."""
  folder, found = pathlib.Path(folder), {}
  for path in sorted(item for item in folder.rglob("*") if item.is_file()):
    name = path.relative_to(folder).as_posix()
    if name != leave_out:
      with open(path, "rb") as handle:
        found[name] = hashlib.file_digest(handle, "sha256").hexdigest()
  return found
