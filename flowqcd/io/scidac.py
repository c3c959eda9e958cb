"""SciDAC's part of LIME files: little XML records, and the checksum of a field."""

from __future__ import annotations

import re
import zlib

import numpy as np

from flowqcd.io.files import FieldFileError


class Checksum:
  """Running checksum of 32-bit words w_i, i = 0, 1, ...: each rotated left by i mod 29 and by i mod 31, all xored.

  SciDAC's words are the crc32 of each site's bytes; MILC's are the data. `value` is (suma, sumb).
  """

  def __init__(self) -> None:
    self.value: tuple[int, int] = (0, 0)
    self._count = 0

  def add_sites(self, sites: np.ndarray) -> None:
    """The next sites' bytes, uint8 [n, bytes of a site]."""
    self.add_words(np.array([zlib.crc32(row) for row in sites], np.uint64))

  def add_words(self, words: np.ndarray) -> None:
    """The next words, any unsigned integers below 2^32, [n]."""
    rank = np.arange(self._count, self._count + len(words), dtype=np.uint64)
    words = words.astype(np.uint64)
    sums = []
    for period, before in zip((29, 31), self.value):
      turn = rank % np.uint64(period)
      turned = (words << turn | words >> (np.uint64(32) - turn)) & np.uint64(0xFFFFFFFF)
      sums.append(before ^ int(np.bitwise_xor.reduce(turned)))
    self.value = sums[0], sums[1]
    self._count += len(words)


def text(data: bytes, what: str, path: object) -> str:
  """An XML record as text without its comments.

  No XML parser sees it: `tag` looks for what is needed, and entities are never expanded. Raises FieldFileError for a
  DOCTYPE or ENTITY, which no such record has a use for.
  """
  found = re.search(rb"<!\s*(DOCTYPE|ENTITY)", data, re.IGNORECASE)
  if found:
    raise FieldFileError(f"{path}: the record '{what}' has a {found[1].decode().upper()} declaration, which is refused")
  # Not by a pattern, which would look for the end of every comment that has none.
  first, *others = data.decode("latin-1").split("<!--")
  return first + "".join(part.partition("-->")[2] for part in others)


def tag(xml: str, name: str, pattern: str, path: object) -> str:
  """The content of the one <name>, with or without a prefix or attributes, that matches a pattern whole.

  Raises FieldFileError unless there is exactly one.
  """
  found = re.findall(rf"<(?:[\w.-]+:)?{name}(?:\s[^<>]*)?>([^<>]*)</(?:[\w.-]+:)?{name}\s*>", xml)
  if len(found) != 1 or not re.fullmatch(pattern, found[0].strip()):
    raise FieldFileError(f"{path}: <{name}> is missing or malformed in the record '{xml[:40]}...'")
  return found[0].strip()
