"""Bytes of a file that others wrote, plain or gzip: no more is read or allocated than the file can hold."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from flowqcd.io.files import FieldFileError

_GZIP = b"\x1f\x8b"
_DEFLATE_RATIO = 1032
"""Deflate makes at most 258 bytes of two bits."""
_PADDING = b"\0 \t\r\n"
_MAX_PADDING = 1 << 20
_CHUNK = 1 << 16


class Source:
  """A file opened for reading. limit: no byte lies at or beyond it; exact for a plain file, a bound for gzip."""

  def __init__(self, handle: BinaryIO | gzip.GzipFile, path: str | os.PathLike, limit: int, packed: bool):
    self.path, self.limit, self.packed = path, limit, packed
    self._handle = handle

  def tell(self) -> int:
    """The position, in unpacked bytes."""
    return self._handle.tell()

  def upto(self, n: int) -> bytes:
    """The next n bytes, fewer at the end. Raises FieldFileError for damaged gzip."""
    try:
      return self._handle.read(n)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise FieldFileError(f"{self.path}: damaged gzip: {error}") from None

  def claim(self, n: int, what: str) -> None:
    """Raise FieldFileError unless the file can hold n more bytes: to be called before anything of that size is made."""
    left = self.limit - self.tell()
    if n > left:
      most = f"at most {max(left, 0)} can be unpacked" if self.packed else f"{max(left, 0)} are left; truncated?"
      raise FieldFileError(f"{self.path}: {what} claims {n} bytes, {most}")

  def read(self, n: int, what: str) -> bytes:
    """The next n bytes. Raises FieldFileError where there are fewer."""
    self.claim(n, what)
    data = self.upto(n)
    if len(data) < n:
      raise FieldFileError(f"{self.path}: {what} claims {n} bytes, {len(data)} are left; truncated?")
    return data

  def seek(self, position: int) -> None:
    """Go to a position, or to the end where that comes first. Raises FieldFileError for damaged gzip."""
    try:
      self._handle.seek(position)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
      raise FieldFileError(f"{self.path}: damaged gzip: {error}") from None

  def require_padding(self) -> None:
    """Raise FieldFileError unless only zeros and white space follow, up to 1 MiB of them."""
    for _ in range(0, _MAX_PADDING, _CHUNK):
      at, data = self.tell(), self.upto(_CHUNK)
      if data.strip(_PADDING):
        raise FieldFileError(f"{self.path}: after the data, from byte {at} on, there is more than padding")
      if not data:
        return
    raise FieldFileError(f"{self.path}: over {_MAX_PADDING} bytes of padding follow the data")


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Source]:
  """The file's bytes, unpacked where it starts as gzip does. Raises OSError."""
  with open(path, "rb") as raw:
    size = os.fstat(raw.fileno()).st_size
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    if not packed:
      yield Source(raw, path, size, False)
      return
    with gzip.GzipFile(fileobj=raw) as handle:
      yield Source(handle, path, size * _DEFLATE_RATIO, True)


def is_padding(data: bytes) -> bool:
  """True for zeros and white space only."""
  return not data.strip(_PADDING)
