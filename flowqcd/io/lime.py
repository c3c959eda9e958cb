"""LIME, the record container of ILDG: a header of 144 bytes, data, padding to eight bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from flowqcd.io.files import FieldFileError

_MAGIC, _VERSION = 0x456789AB, 1
_HEADER = struct.Struct(">IHHQ128s")
_BEGIN, _END = 1 << 15, 1 << 14


class Record(NamedTuple):
  """A record's type and content."""

  type: str
  data: bytes


def read(path: str | os.PathLike) -> list[Record]:
  """All records of a file. Raises FieldFileError for anything that is not whole LIME, before any large allocation."""
  size = os.path.getsize(path)
  records: list[Record] = []
  with open(path, "rb") as handle:
    while (at := handle.tell()) < size:
      records.append(_read_record(handle, at, size, path))
  if not records:
    raise FieldFileError(f"{path}: the file is empty")
  return records


def _read_record(handle: BinaryIO, at: int, size: int, path: object) -> Record:
  header = handle.read(_HEADER.size)
  if len(header) < _HEADER.size:
    raise FieldFileError(f"{path}: truncated in the record header at byte {at}")
  magic, version, _, length, name = _HEADER.unpack(header)
  if magic != _MAGIC or version != _VERSION:
    raise FieldFileError(f"{path}: no LIME record at byte {at} (magic {magic:#x}, version {version})")
  start = at + _HEADER.size
  if length > size - start:
    raise FieldFileError(f"{path}: the record at byte {at} claims {length} bytes, {size - start} are left; truncated?")
  data = handle.read(length)
  handle.seek(start + length + -length % 8)
  return Record(name.split(b"\0")[0].decode("latin-1"), data)


def write(handle: BinaryIO, records: Iterable[Record]) -> None:
  """Write records as one message each way round: first flagged begin, last flagged end."""
  records = list(records)
  for i, record in enumerate(records):
    flags = (_BEGIN if i == 0 else 0) | (_END if i == len(records) - 1 else 0)
    name = record.type.encode("ascii")
    handle.write(_HEADER.pack(_MAGIC, _VERSION, flags, len(record.data), name))
    handle.write(record.data + b"\0" * (-len(record.data) % 8))
