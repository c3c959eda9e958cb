"""NERSC archive format: a text header, then SU(3) links, full (3x3) or their first two rows.

Sites x fastest, then y, z, t; links x, y, z, t at each. The checksum is the sum of the data as 32-bit words in the
file's own byte order.
"""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, files
from flowqcd.io.files import FieldFileError

_ROWS = {"4D_SU3_GAUGE": 2, "4D_SU3_GAUGE_3x3": 3, "4D_SU3_GAUGE_3X3": 3}
_FLOATS = {
  "IEEE32": (">", 32),
  "IEEE32BIG": (">", 32),
  "IEEE32LITTLE": ("<", 32),
  "IEEE32SMALL": ("<", 32),
  "IEEE64": (">", 64),
  "IEEE64BIG": (">", 64),
  "IEEE64LITTLE": ("<", 64),
  "IEEE64SMALL": ("<", 64),
}
_MAX_HEADER = 1 << 16


class Info(NamedTuple):
  """What the file says and what was computed. extents: (T, X, Y, Z). header: all its fields."""

  extents: tuple[int, int, int, int]
  precision: int
  rows: int
  plaquette: float
  link_trace: float
  checksum: int
  header: dict[str, str]


def read(path: str | os.PathLike) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), and what the file says.

  Checksum, plaquette, link trace and unitarity are verified; what the header does not state is a warning.
  Raises FieldFileError.
  """
  header, start = _header(path)
  extents = _extents(header, path)
  rows = _choice(header, "DATATYPE", _ROWS, path)
  order, bits = _choice(header, "FLOATING_POINT", _FLOATS, path)
  volume = int(np.prod(extents, dtype=object))
  expected, found = volume * 4 * rows * 3 * 2 * bits // 8, os.path.getsize(path) - start
  if found != expected:
    raise FieldFileError(
      f"{path}: a lattice {extents} as {header['DATATYPE']} at {bits} bits takes {expected} bytes, the file has {found}"
    )
  with open(path, "rb") as handle:
    handle.seek(start)
    binary = handle.read(expected)
  checksum = _checksum(binary, order)
  _verify_checksum(header, checksum, path)
  data = np.frombuffer(binary, f"{order}c{bits // 4}").astype(np.complex128).reshape(-1, rows, 3)
  if not np.isfinite(data.view(np.float64)).all():
    raise FieldFileError(f"{path}: some numbers are not finite")
  with np.errstate(all="ignore"):
    u = fields.from_file_order(data if rows == 3 else fields.complete_rows(data), extents)
  fields.check_unitary(u, bits, path)
  # Writers compute these in the precision of the links.
  digits = 1e-6 if bits == 32 else 1e-9
  plaquette, trace = fields.plaquette(u), fields.link_trace(u)
  fields.check_stated("plaquette", plaquette, header.get("PLAQUETTE"), digits, path)
  fields.check_stated("link trace", trace, header.get("LINK_TRACE"), digits, path)
  return u, Info(extents, bits, rows, plaquette, trace, checksum, header)


def _header(path: str | os.PathLike) -> tuple[dict[str, str], int]:
  """The header's fields and where the data start."""
  with open(path, "rb") as handle:
    text = handle.read(_MAX_HEADER)
  if not text.startswith(b"BEGIN_HEADER"):
    raise FieldFileError(f"{path}: the file does not start with BEGIN_HEADER, so it is not NERSC")
  end = text.find(b"END_HEADER\n")
  if end < 0:
    raise FieldFileError(f"{path}: no END_HEADER in the first {_MAX_HEADER} bytes; truncated?")
  fields_: dict[str, str] = {}
  for line in text[:end].decode("latin-1").split("\n")[1:]:
    if not line.strip():
      continue
    key, separator, value = (part.strip() for part in line.partition("="))
    if not separator or not key:
      raise FieldFileError(f"{path}: the header line '{line[:60]}' is not KEY = VALUE")
    if key in fields_:
      raise FieldFileError(f"{path}: the header states {key} twice")
    fields_[key] = value
  return fields_, end + len(b"END_HEADER\n")


def _choice(header: dict[str, str], key: str, options: dict, path: object):
  value = header.get(key)
  if value not in options:
    raise FieldFileError(f"{path}: {key} is '{value}', it must be one of {', '.join(options)}")
  return options[value]


def _extents(header: dict[str, str], path: object) -> tuple[int, int, int, int]:
  values = [header.get(f"DIMENSION_{i}", "missing") for i in (1, 2, 3, 4)]
  if not all(v.isascii() and v.isdigit() and 0 < int(v[:9]) and len(v) < 7 for v in values):
    raise FieldFileError(f"{path}: DIMENSION_1..4 are {values}, four positive integers are needed")
  x, y, z, t = (int(v) for v in values)
  return t, x, y, z


def _verify_checksum(header: dict[str, str], found: int, path: object) -> None:
  stated = header.get("CHECKSUM")
  if stated is None:
    warnings.warn(f"{path}: the header states no CHECKSUM to check", stacklevel=3)
    return
  try:
    number = int(stated, 16)
  except ValueError:
    raise FieldFileError(f"{path}: CHECKSUM = '{stated[:40]}' is no number") from None
  if number != found:
    raise FieldFileError(f"{path}: checksum {found:x}, the header says {number:x}")


def _checksum(binary: bytes, order: str) -> int:
  return int(np.frombuffer(binary, f"{order}u4").sum(dtype=np.uint64)) & 0xFFFFFFFF


def write(
  path: str | os.PathLike,
  u: np.ndarray,
  floating_point: str = "IEEE64BIG",
  rows: int = 3,
  overwrite: bool = False,
) -> None:
  """Write SU(3) links u [4, 3, 3, T, X, Y, Z]; atomically, refusing to replace a file unless asked.

  floating_point: IEEE32BIG, IEEE32LITTLE, IEEE64BIG or IEEE64LITTLE (which other readers refuse); rows: 3, or 2 to store
  the first two of each matrix. Raises ValueError, FileExistsError.
  """
  if floating_point not in _FLOATS:
    raise ValueError(f"floating_point must be one of {', '.join(_FLOATS)}, not {floating_point}")
  if rows not in (2, 3):
    raise ValueError(f"rows must be 2 or 3, not {rows}")
  u = fields.check_links(u)
  order, bits = _FLOATS[floating_point]
  data = fields.to_file_order(u)[..., :rows, :].astype(f"{order}c{bits // 4}").tobytes()
  t, x, y, z = u.shape[3:]
  lines = ["BEGIN_HEADER", "HDR_VERSION = 1.0"]
  lines += [f"DATATYPE = {'4D_SU3_GAUGE_3x3' if rows == 3 else '4D_SU3_GAUGE'}", "STORAGE_FORMAT = 1.0"]
  lines += [f"DIMENSION_{i} = {n}" for i, n in enumerate((x, y, z, t), 1)]
  lines += [f"BOUNDARY_{i} = PERIODIC" for i in (1, 2, 3, 4)]
  lines += [f"LINK_TRACE = {fields.link_trace(u):.16g}", f"PLAQUETTE = {fields.plaquette(u):.16g}"]
  lines += [f"CHECKSUM = {_checksum(data, order):x}", f"FLOATING_POINT = {floating_point}", "END_HEADER", ""]
  with files.atomic(path, overwrite) as handle:
    handle.write("\n".join(lines).encode("ascii") + data)
