"""NERSC archive format: a text header, then SU(3) links, full (3x3) or their first two rows.

Sites x fastest, then y, z, t; links x, y, z, t at each. The checksum is the sum of the data as 32-bit words in the
file's own byte order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, files, formats, source
from flowqcd.io.files import FieldFileError

_ROWS = {"4D_SU3_GAUGE": 2, "4D_SU3_GAUGE_3X3": 3}
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
  """What the file says and what was computed of its links. extents: (T, X, Y, Z). header: all its fields.

  violation: max |U U^dag - 1|, |det U - 1|. Keys of the header are in upper case.
  warnings: what `read` warns of beside drift.
  """

  extents: tuple[int, int, int, int]
  precision: int
  rows: int
  plaquette: float
  link_trace: float
  violation: float
  checksum: int
  header: dict[str, str]
  warnings: tuple[str, ...] = ()


def read(path: str | os.PathLike, reunitarise: bool = False, check_plaquette: bool = True) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), and what the file says. The file may be gzip.

  reunitarise: project links on SU(3). Checksum, plaquette and unitarity are verified, the plaquette since the checksum is
  blind to the order of numbers. A warning is what the header does not state, drift from the group of single precision's
  size in 64 bits, or another link trace beside a right checksum and plaquette. check_plaquette=False makes another
  plaquette a warning, for writers that state a wrong one. Raises FieldFileError.
  """
  u, info = load(path, check_plaquette)
  return fields.settle(path, u, info, reunitarise), info


def load(path: str | os.PathLike, check_plaquette: bool = True) -> tuple[np.ndarray, Info]:
  """The links as they are, and the info with what `read` warns of beside drift from the group."""
  with source.opened(path) as file:
    header = _header(file)
    rows = _choice(header, "DATATYPE", _ROWS, path)
    order, bits = _choice(header, "FLOATING_POINT", _FLOATS, path)
    layout = fields.Layout(_extents(header, path), f"{order}c{bits // 4}", rows)
    sums: list[int] = []
    u, drift = fields.read_links(file, layout, lambda sites: sums.append(_checksum(sites, order)))
    file.require_padding()
  checksum = sum(sums) & 0xFFFFFFFF
  _verify_checksum(header, checksum, path)
  # The checksum would not see words in another order.
  fields.check_unitary(drift, bits, False, path)
  digits = fields.stated_digits(drift, bits)
  plaquette, trace = fields.plaquette(u), fields.link_trace(u)
  missing = [key for key in ("CHECKSUM", "PLAQUETTE", "LINK_TRACE") if key not in header]
  wrong = fields.disagreement("plaquette", plaquette, header.get("PLAQUETTE", f"{plaquette}"), digits)
  other = fields.disagreement("link trace", trace, header.get("LINK_TRACE", f"{trace}"), digits)
  if check_plaquette and (wrong or (other and missing)):
    raise FieldFileError(f"{path}: {wrong or other} (check_plaquette=False makes that a warning)")
  unstated = [f"the header states no {key} to check" for key in missing]
  said = fields.found(*unstated, wrong, other)
  return u, Info(_extents(header, path), bits, rows, plaquette, trace, drift.worst, checksum, header, said)


def _header(file: source.Source) -> dict[str, str]:
  """The header's fields; the source is left where the data start.

  Lines may end in CRLF, keys may be in lower case, and a line that starts with # is a comment.
  """
  text = file.upto(_MAX_HEADER)
  if not text[:12].upper() == b"BEGIN_HEADER":
    hint = formats.advice(text[: formats.HEAD], None if file.packed else file.limit)
    raise FieldFileError(f"{file.path}: the file does not start with BEGIN_HEADER, so it is not NERSC{hint}")
  end = re.search(rb"^[ \t]*END_HEADER[ \t]*\r?\n", text, re.MULTILINE | re.IGNORECASE)
  if end is None:
    raise FieldFileError(f"{file.path}: no END_HEADER in the first {_MAX_HEADER} bytes; truncated?")
  fields_: dict[str, str] = {}
  for line in text[: end.start()].decode("latin-1").split("\n")[1:]:
    if not line.strip() or line.lstrip().startswith("#"):
      continue
    key, separator, value = (part.strip() for part in line.partition("="))
    if not separator or not key:
      raise FieldFileError(f"{file.path}: the header line '{line[:60].strip()}' is not KEY = VALUE")
    key = key.upper()
    if key in fields_:
      raise FieldFileError(f"{file.path}: the header states {key} twice")
    fields_[key] = value
  file.seek(end.end())
  return fields_


def _choice(header: dict[str, str], key: str, options: dict, path: object):
  value = header.get(key, "missing")
  if value.upper() not in options:
    raise FieldFileError(f"{path}: {key} is '{value[:40]}', it must be one of {', '.join(options)}")
  return options[value.upper()]


def _extents(header: dict[str, str], path: object) -> tuple[int, int, int, int]:
  values = [header.get(f"DIMENSION_{i}", "missing") for i in (1, 2, 3, 4)]
  if not all(v.isascii() and v.isdigit() and 0 < int(v[:9]) and len(v) < 7 for v in values):
    raise FieldFileError(f"{path}: DIMENSION_1..4 are {values}, four positive integers are needed")
  x, y, z, t = (int(v) for v in values)
  return t, x, y, z


def _verify_checksum(header: dict[str, str], found: int, path: object) -> None:
  stated = header.get("CHECKSUM")
  if stated is None:
    return
  if not re.fullmatch(r"(0x)?[0-9a-f]{1,16}", stated, re.IGNORECASE):
    raise FieldFileError(f"{path}: CHECKSUM = '{stated[:40]}' is no number")
  number = int(stated, 16)
  if number != found:
    raise FieldFileError(f"{path}: checksum {found:x}, the header says {number:x}")


def _checksum(data: np.ndarray, order: str) -> int:
  """The sum modulo 2^32 of bytes, any uint8 array, as words of the file's byte order."""
  return int(data.view(f"{order}u4").sum(dtype=np.uint64)) & 0xFFFFFFFF


def write(
  path: str | os.PathLike,
  u: np.ndarray,
  floating_point: str = "IEEE64BIG",
  rows: int = 3,
  overwrite: bool = False,
  header: Mapping[str, str] | None = None,
) -> None:
  """Write SU(3) links u [4, 3, 3, T, X, Y, Z]; atomically, refusing to replace a file unless asked.

  floating_point: IEEE32BIG, IEEE32LITTLE, IEEE64BIG or IEEE64LITTLE (which other readers refuse); rows: 3, or 2 to store
  the first two of each matrix; header: further fields, which other readers pass over. Raises ValueError, FileExistsError.
  """
  if floating_point not in _FLOATS:
    raise ValueError(f"floating_point must be one of {', '.join(_FLOATS)}, not {floating_point}")
  if rows not in (2, 3):
    raise ValueError(f"rows must be 2 or 3, not {rows}")
  u = fields.check_links(u)
  if rows == 2:
    u = fields.complete_rows(u)
  order, bits = _FLOATS[floating_point]
  data = fields.to_file_order(u)[..., :rows, :].astype(f"{order}c{bits // 4}").tobytes()
  t, x, y, z = u.shape[3:]
  lines = ["BEGIN_HEADER", "HDR_VERSION = 1.0"]
  lines += [f"DATATYPE = {'4D_SU3_GAUGE_3x3' if rows == 3 else '4D_SU3_GAUGE'}", "STORAGE_FORMAT = 1.0"]
  lines += [f"DIMENSION_{i} = {n}" for i, n in enumerate((x, y, z, t), 1)]
  lines += [f"BOUNDARY_{i} = PERIODIC" for i in (1, 2, 3, 4)]
  lines += [f"LINK_TRACE = {fields.link_trace(u):.16g}", f"PLAQUETTE = {fields.plaquette(u):.16g}"]
  lines += [f"{key} = {value}" for key, value in (header or {}).items()]
  lines += [
    f"CHECKSUM = {_checksum(np.frombuffer(data, np.uint8), order):x}",
    f"FLOATING_POINT = {floating_point}",
    "END_HEADER",
    "",
  ]
  with files.atomic(path, overwrite) as handle:
    handle.write("\n".join(lines).encode("ascii"))
    handle.write(data)
