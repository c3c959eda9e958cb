"""LIME, the record container of ILDG: a header of 144 bytes, data, padding to eight bytes.

Records form messages: the first has the flag message-begin, the last message-end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from flowqcd.io import formats
from flowqcd.io.files import FieldFileError
from flowqcd.io.source import Source, is_padding

_MAGIC, _VERSION = 0x456789AB, 1
_HEADER = struct.Struct(">IHHQ128s")
_BEGIN, _END = 1 << 15, 1 << 14
_MAX_RECORDS = 1000
SHORT = 1 << 16
"""Bytes that a description or checksum may have."""


class Record(NamedTuple):
  """Where a record's data lie in the file, and whether it begins or ends a message.

  data: None where there are more than SHORT bytes.
  """

  type: str
  start: int
  length: int
  begins: bool
  ends: bool
  data: bytes | None


def index(source: Source) -> list[list[Record]]:
  """The messages of a file, each a list of records. Data beyond SHORT bytes are passed over.

  Zeros may follow the last record. Raises FieldFileError for anything that is not whole LIME; a last record without the
  flag message-end means that the file was cut between two records.
  """
  messages: list[list[Record]] = []
  count, last = 0, None
  while header := source.upto(_HEADER.size):
    if last is not None and is_padding(header):
      source.require_padding()
      break
    record = _record(source, header)
    if last is None or last.ends or record.begins:
      messages.append([])
    messages[-1].append(record)
    count, last = count + 1, record
    if count > _MAX_RECORDS:
      raise FieldFileError(f"{source.path}: over {_MAX_RECORDS} LIME records")
  if last is None:
    raise FieldFileError(f"{source.path}: the file is empty")
  if not last.ends:
    raise FieldFileError(
      f"{source.path}: the last record '{last.type}' has no flag message-end, so records that followed it are cut off"
    )
  return messages


def _record(source: Source, header: bytes) -> Record:
  """One record from its header; the source is left at the next one."""
  start = source.tell()
  at = start - len(header)
  known = header[:4] == _MAGIC.to_bytes(4, "big")
  if not known:
    size = None if source.packed else source.limit
    hint = formats.advice(header, size) if at == 0 else ""
    raise FieldFileError(f"{source.path}: no LIME record at byte {at} (magic {header[:4].hex()}){hint}")
  if len(header) < _HEADER.size:
    raise FieldFileError(f"{source.path}: truncated in the record header at byte {at}")
  _, version, flags, length, name = _HEADER.unpack(header)
  if version != _VERSION:
    raise FieldFileError(f"{source.path}: the record at byte {at} has LIME version {version}, only 1 is known")
  what = f"the record at byte {at}"
  source.claim(length, what)
  data = source.read(length, what) if length <= SHORT else None
  source.seek(start + length)
  if source.tell() < start + length:
    raise FieldFileError(f"{source.path}: {what} claims {length} bytes, {source.tell() - start} are left; truncated?")
  source.upto(-length % 8)
  type_ = name.split(b"\0")[0].decode("latin-1")
  return Record(type_, start, length, bool(flags & _BEGIN), bool(flags & _END), data)


def write(handle: BinaryIO, records: Iterable[tuple[str, bytes]]) -> None:
  """Write records, pairs of type and data, as one message."""
  records = list(records)
  for i, (name, content) in enumerate(records):
    flags = (_BEGIN if i == 0 else 0) | (_END if i == len(records) - 1 else 0)
    handle.write(_HEADER.pack(_MAGIC, _VERSION, flags, len(content), name.encode("ascii")))
    handle.write(content)
    handle.write(b"\0" * (-len(content) % 8))
