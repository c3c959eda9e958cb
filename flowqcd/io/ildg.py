"""ILDG gauge configurations: SU(3) links in LIME records, with SciDAC checksum.

Sites t slowest, then z, y, x; links x, y, z, t at each; 3x3 row-major, big-endian. Detar and others, "ILDG binary file
format", rev. 1.2.
"""

from __future__ import annotations

import os
import re
import warnings
import zlib
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, files, lime
from flowqcd.io.files import FieldFileError


class Info(NamedTuple):
  """What the file says and what was computed. extents: (T, X, Y, Z). checksum: (suma, sumb), None if absent."""

  extents: tuple[int, int, int, int]
  precision: int
  plaquette: float
  checksum: tuple[int, int] | None
  records: dict[str, str]


def checksum(sites: np.ndarray) -> tuple[int, int]:
  """SciDAC checksum of the file's bytes by site, uint8 [V, bytes]: crc32, rotated by rank mod 29 and mod 31, xored."""
  crc = np.array([zlib.crc32(row) for row in sites], np.uint64)
  sums = []
  for period in (29, 31):
    turn = np.arange(len(crc), dtype=np.uint64) % np.uint64(period)
    turned = (crc << turn | crc >> (np.uint64(32) - turn)) & np.uint64(0xFFFFFFFF)
    sums.append(int(np.bitwise_xor.reduce(turned)))
  return sums[0], sums[1]


def read(path: str | os.PathLike) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), and what the file says.

  Checksum, stated plaquette and unitarity are verified; a missing checksum is a warning. Raises FieldFileError.
  """
  records = lime.read(path)
  by_type = {record.type: record.data for record in records}
  extents, bits = _format(_single(records, "ildg-format", path), path)
  binary = _single(records, "ildg-binary-data", path)
  volume = int(np.prod(extents, dtype=object))
  expected = volume * 4 * 9 * 2 * bits // 8
  if len(binary) != expected:
    raise FieldFileError(
      f"{path}: a lattice {extents} at {bits} bits takes {expected} bytes of data, the file has {len(binary)}"
    )
  stated = _stated_checksum(records, path)
  if stated is None:
    warnings.warn(f"{path}: no SciDAC checksum to verify", stacklevel=2)
  elif (found := checksum(np.frombuffer(binary, np.uint8).reshape(volume, -1))) != stated:
    raise FieldFileError(f"{path}: checksum {found[0]:x} {found[1]:x}, stated {stated[0]:x} {stated[1]:x}")
  data = np.frombuffer(binary, ">c16" if bits == 64 else ">c8").reshape(-1, 3, 3)
  u = fields.from_file_order(data, extents)
  fields.check_unitary(u, bits, path)
  text = {k: v.decode("utf-8", "replace") for k, v in by_type.items() if k != "ildg-binary-data"}
  plaquette = _verify_plaquette(u, text, bits, path)
  return u, Info(extents, bits, plaquette, stated, text)


def _single(records: list[lime.Record], name: str, path: object) -> bytes:
  found = [record.data for record in records if record.type == name]
  if len(found) != 1:
    raise FieldFileError(f"{path}: {len(found)} records '{name}' where one is expected")
  return found[0]


def _tag(xml: str, tag: str, pattern: str, path: object) -> str:
  found = re.findall(rf"<{tag}>\s*({pattern})\s*</{tag}>", xml)
  if len(found) != 1:
    raise FieldFileError(f"{path}: <{tag}> is missing or malformed in the record '{xml[:40]}...'")
  return found[0]


def _format(data: bytes, path: object) -> tuple[tuple[int, int, int, int], int]:
  xml = data.decode("latin-1")
  field = _tag(xml, "field", r"\S+", path)
  if field != "su3gauge":
    raise FieldFileError(f"{path}: the field is '{field}', only su3gauge can be read")
  bits = int(_tag(xml, "precision", r"\d+", path))
  if bits not in (32, 64):
    raise FieldFileError(f"{path}: precision {bits}, it must be 32 or 64")
  t, x, y, z = (int(_tag(xml, tag, r"[0-9]{1,6}", path)) for tag in ("lt", "lx", "ly", "lz"))
  if min(t, x, y, z) < 1:
    raise FieldFileError(f"{path}: extents {t, x, y, z} must be positive")
  return (t, x, y, z), bits


def _stated_checksum(records: list[lime.Record], path: object) -> tuple[int, int] | None:
  if not any(record.type == "scidac-checksum" for record in records):
    return None
  xml = _single(records, "scidac-checksum", path).decode("latin-1")
  a, b = (int(_tag(xml, tag, r"[0-9a-fA-F]{1,8}", path), 16) for tag in ("suma", "sumb"))
  return a, b


def _verify_plaquette(u: np.ndarray, text: dict[str, str], bits: int, path: object) -> float:
  """Compare with the plaquette of an xlf-info record (tmLQCD), where there is one: a courtesy, no part of the format."""
  value = fields.plaquette(u)
  found = re.search(r"plaquette\s*=\s*(\S+)", text.get("xlf-info", ""))
  if found:
    fields.check_stated("plaquette", value, found[1], 1e-11 if bits == 64 else 1e-6, path)
  return value


def write(path: str | os.PathLike, u: np.ndarray, precision: int = 64, overwrite: bool = False) -> None:
  """Write SU(3) links u [4, 3, 3, T, X, Y, Z] with checksum; atomically, refusing to replace a file unless asked.

  Raises ValueError for links that are none, FileExistsError.
  """
  if precision not in (32, 64):
    raise ValueError(f"precision must be 32 or 64, not {precision}")
  u = fields.check_links(u)
  t, x, y, z = u.shape[3:]
  data = fields.to_file_order(u).astype(">c16" if precision == 64 else ">c8").tobytes()
  sums = checksum(np.frombuffer(data, np.uint8).reshape(t * x * y * z, -1))
  head = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ildgFormat xmlns="http://www.lqcd.org/ildg">\n'
    f"  <version>1.0</version>\n  <field>su3gauge</field>\n  <precision>{precision}</precision>\n"
    f"  <lx>{x}</lx><ly>{y}</ly><lz>{z}</lz><lt>{t}</lt>\n</ildgFormat>\n"
  )
  tail = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<scidacChecksum>\n  <version>1.0</version>\n'
    f"  <suma>{sums[0]:08x}</suma>\n  <sumb>{sums[1]:08x}</sumb>\n</scidacChecksum>\n"
  )
  records = [
    lime.Record("ildg-format", head.encode()),
    lime.Record("ildg-binary-data", data),
    lime.Record("ildg-data-lfn", b"lfn://flowqcd/unregistered"),
    lime.Record("scidac-checksum", tail.encode()),
  ]
  with files.atomic(path, overwrite) as handle:
    lime.write(handle, records)
