"""MILC's binary format, version 5: a header of 96 bytes, then SU(3) links in single precision, of either byte order.

Sites t slowest, then z, y, x; links x, y, z, t at each; 3x3 row-major. Only read.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, formats, scidac, source
from flowqcd.io.files import FieldFileError

_MAGIC = 20103
_HEADER = "5i64siII"


class Info(NamedTuple):
  """What the file says and what was computed of its links. extents: (T, X, Y, Z). checksum: (sum29, sum31).

  violation: max |U U^dag - 1|, |det U - 1|. date: as the file has it. warnings: none, since the checksum tells all.
  """

  extents: tuple[int, int, int, int]
  precision: int
  plaquette: float
  link_trace: float
  violation: float
  checksum: tuple[int, int]
  date: str
  warnings: tuple[str, ...] = ()


def read(path: str | os.PathLike, reunitarise: bool = False) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), and what the file says. The file may be gzip.

  reunitarise: project links on SU(3). Checksum and unitarity are verified. Raises FieldFileError.
  """
  with source.opened(path) as file:
    order, extents, date, stated = _header(file)
    layout = fields.Layout(extents, f"{order}c8")
    sums = scidac.Checksum()
    u, drift = fields.read_links(file, layout, lambda sites: sums.add_words(sites.view(f"{order}u4").ravel()))
    file.require_padding()
  if sums.value != stated:
    found = sums.value
    raise FieldFileError(f"{path}: checksum {found[0]:x} {found[1]:x}, stated {stated[0]:x} {stated[1]:x}")
  fields.check_unitary(drift, layout.bits, True, path)
  plaquette, trace = fields.plaquette(u), fields.link_trace(u)
  if reunitarise:
    fields.reunitarise(u)
  return u, Info(extents, layout.bits, plaquette, trace, drift.worst, stated, date)


def _header(file: source.Source) -> tuple[str, tuple[int, int, int, int], str, tuple[int, int]]:
  """Byte order, extents, date and checksum."""
  head = file.upto(struct.calcsize("<" + _HEADER))
  order = {_MAGIC.to_bytes(4, "little"): "<", _MAGIC.to_bytes(4, "big"): ">"}.get(head[:4])
  if order is None:
    hint = formats.advice(head, None if file.packed else file.limit)
    raise FieldFileError(f"{file.path}: the file does not start with MILC's number {_MAGIC}{hint}")
  if len(head) < struct.calcsize("<" + _HEADER):
    raise FieldFileError(f"{file.path}: truncated in the header")
  _, x, y, z, t, date, sites, sum29, sum31 = struct.unpack(order + _HEADER, head)
  if min(x, y, z, t) < 1:
    raise FieldFileError(f"{file.path}: extents {t, x, y, z} must be positive")
  if sites != 0:
    raise FieldFileError(f"{file.path}: the order of sites is {sites}, only 0 (natural) can be read")
  return order, (t, x, y, z), date.split(b"\0")[0].decode("latin-1"), (sum29, sum31)
