"""ILDG gauge configurations: SU(3) links in LIME records, with SciDAC checksum; and SciDAC's own, as QIO writes them.

Sites t slowest, then z, y, x; links x, y, z, t at each; 3x3 row-major, big-endian. Detar and others, "ILDG binary file
format", rev. 1.2.

Links of SU(2) and U(1) go into the same records, in 2 to 4 dimensions, under <field>su2gauge</field> and u1gauge with their
number of directions in <spacetime>: no ILDG files, and none that passes for SU(3).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, files, lime, scidac, source
from flowqcd.io.files import FieldFileError, NoExtentsError, OtherExtentsError

_BINARY = "ildg-binary-data", "scidac-binary-data"

_COLOURS = {name: nc for nc, name in fields.NAMES.items()}
_EXTENTS = "lt", "lx", "ly", "lz"

Extents = tuple[int, ...]
Messages = list[list[lime.Record]]


class Info(NamedTuple):
  """What the file says and what was computed of its links. extents: (T, X, Y, Z). checksum: (suma, sumb), None if absent.

  violation: max |U U^dag - 1|, |det U - 1|. records: text by record type.
  warnings: what `read` warns of beside drift.
  """

  extents: Extents
  precision: int
  plaquette: float
  violation: float
  checksum: tuple[int, int] | None
  records: dict[str, str]
  warnings: tuple[str, ...] = ()


def read(path: str | os.PathLike, extents: Extents | None = None, reunitarise: bool = False) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), and what the file says. The file may be gzip.

  extents: (T, X, Y, Z), needed where the file has only bare data; reunitarise: project links on the group. Checksum and
  unitarity are verified; a warning is a missing checksum, drift from the group of single precision's size in 64 bits, or
  another plaquette in tmLQCD's record xlf-info beside a right checksum. Raises FieldFileError. Of SU(2) and U(1), as
  `write` has them, links are [Nd, Nc, Nc, T, X, ...].
  """
  u, info = load(path, extents)
  return fields.settle(path, u, info, reunitarise), info


def load(path: str | os.PathLike, extents: Extents | None = None) -> tuple[np.ndarray, Info]:
  """The links as they are, and the info with what `read` warns of beside drift from the group."""
  with source.opened(path) as file:
    messages = lime.index(file)
    message, binary = _field(messages, path)
    layout = _layout(messages, message, binary, extents, path)
    if binary.length != layout.size:
      raise FieldFileError(f"{path}: {layout} takes {layout.size} bytes of data, the file has {binary.length}")
    stated = _stated_checksum(messages, message, path)
    text = _texts([*messages, message])
    file.seek(binary.start)
    sums = scidac.Checksum()
    u, drift = fields.read_links(file, layout, sums.add_sites)
  if stated is not None and sums.value != stated:
    found = sums.value
    raise FieldFileError(f"{path}: checksum {found[0]:x} {found[1]:x}, stated {stated[0]:x} {stated[1]:x}")
  fields.check_unitary(drift, layout.bits, stated is not None, path)
  plaquette = fields.plaquette(u)
  other = _other_plaquette(plaquette, text, fields.stated_digits(drift, layout.bits))
  if other and stated is None:
    raise FieldFileError(f"{path}: {other}, and there is no checksum to decide")
  missing = "no SciDAC checksum to verify" if stated is None else None
  said = fields.found(missing, other and f"{other}; the checksum is right")
  return u, Info(layout.extents, layout.bits, plaquette, drift.worst, stated, text, said)


def _field(messages: Messages, path: object) -> tuple[list[lime.Record], lime.Record]:
  """The one record that holds the links, and the message that it is in."""
  for name in _BINARY:
    found = [(message, record) for message in messages for record in message if record.type == name]
    if len(found) > 1:
      raise FieldFileError(f"{path}: {len(found)} records '{name}' where one is expected")
    if found:
      return found[0]
  raise FieldFileError(f"{path}: 0 records '{_BINARY[0]}' where one is expected")


def _xml(records: list[lime.Record], name: str, path: object) -> str | None:
  """The text of the one record of that type, None if there is none. Raises FieldFileError where there are more."""
  found = [record for record in records if record.type == name]
  if len(found) > 1:
    raise FieldFileError(f"{path}: {len(found)} records '{name}' where one is expected")
  if not found:
    return None
  if found[0].data is None:
    raise FieldFileError(f"{path}: the record '{name}' has {found[0].length} bytes, at most {lime.SHORT} make sense")
  return scidac.text(found[0].data, name, path)


def _layout(
  messages: Messages,
  message: list[lime.Record],
  binary: lime.Record,
  extents: Extents | None,
  path: object,
) -> fields.Layout:
  """How the links lie in the file, by its own word where it has one."""
  everything = [record for each in messages for record in each]
  of_file = _xml(everything, "scidac-private-file-xml", path)
  dims = _scidac_extents(of_file, path) if of_file else None
  if binary.type == "scidac-binary-data":
    if dims is None:
      raise FieldFileError(f"{path}: 'scidac-binary-data' without a record 'scidac-private-file-xml'")
    says, nc = dims, 3
    bits = _scidac_bits(_xml(message, "scidac-private-record-xml", path) or "", path)
  else:
    xml = _xml(message, "ildg-format", path) or _xml(everything, "ildg-format", path)
    says, bits, nc = _ildg_format(xml, path) if xml else (*_bare(binary.length, extents, path), 3)
  differ = f"{path}: the file's extents (T, X, Y, Z) are {says}"
  if dims is not None and dims != says:
    raise FieldFileError(f"{differ}, the record 'scidac-private-file-xml' says {dims}")
  if extents is not None and tuple(extents) != says:
    raise OtherExtentsError(f"{differ}, the caller says {tuple(extents)}")
  return fields.Layout(says, ">c16" if bits == 64 else ">c8", nc, nc)


def _ildg_format(xml: str, path: object) -> tuple[Extents, int, int]:
  """Extents, precision and colours."""
  field = scidac.tag(xml, "field", r"\S+", path)
  if field not in _COLOURS:
    raise FieldFileError(f"{path}: the field is '{field[:40]}', only {', '.join(_COLOURS)} can be read")
  bits = scidac.tag(xml, "precision", r"\d+", path)
  if bits not in ("32", "64"):
    raise FieldFileError(f"{path}: precision {bits[:40]}, it must be 32 or 64")
  dimensions = 4 if field == "su3gauge" else int(scidac.tag(xml, "spacetime", "[234]", path))
  extents = tuple(int(scidac.tag(xml, name, r"[0-9]{1,6}", path)) for name in _EXTENTS[:dimensions])
  if min(extents) < 1:
    raise FieldFileError(f"{path}: extents {extents} must be positive")
  return extents, int(bits), _COLOURS[field]


def _scidac_extents(xml: str, path: object) -> Extents:
  if scidac.tag(xml, "volfmt", r"\d", path) != "0":
    raise FieldFileError(f"{path}: the field is spread over several files (volfmt), only single files can be read")
  dims = [int(n) for n in scidac.tag(xml, "dims", r"[0-9]{1,6}(\s+[0-9]{1,6})*", path).split()]
  if len(dims) != 4 or min(dims) < 1:
    raise FieldFileError(f"{path}: dims are {dims}, four positive extents are needed")
  x, y, z, t = dims
  return t, x, y, z


def _scidac_bits(xml: str, path: object) -> int:
  """Of a lattice of four SU(3) matrices a site, which is what QIO calls a gauge field."""
  said = {
    name: scidac.tag(xml, name, r"\w+", path) for name in ("globaldata", "precision", "colors", "datacount", "typesize")
  }
  bits = {"F": 32, "D": 64}.get(said["precision"], 0)
  needed = {
    "globaldata": "0",
    "precision": said["precision"],
    "colors": "3",
    "datacount": "4",
    "typesize": f"{9 * bits // 4}",
  }
  if not bits or said != needed:
    raise FieldFileError(f"{path}: the record holds {said}, which is not a gauge field of SU(3)")
  return bits


def _bare(length: int, extents: Extents | None, path: object) -> tuple[Extents, int]:
  """What a record without any description must be on a lattice of given extents."""
  # 4 links of 9 complex numbers are 9 bytes a site for every bit of a real number.
  sites = {bits: length // (9 * bits) for bits in (64, 32) if length % (9 * bits) == 0}
  if not sites or length == 0:
    raise FieldFileError(f"{path}: {length} bytes of data are no field of SU(3) on any lattice")
  if extents is None:
    fitting = " or ".join(f"extents={_example(n)} at {bits} bits" for bits, n in sites.items())
    raise NoExtentsError(f"{path}: bare data do not say their extents T,X,Y,Z; these fit, for example: {fitting}")
  found = next((bits for bits, n in sites.items() if len(extents) == 4 and math.prod(extents) == n), None)
  if found is None or min(extents) < 1:
    raise OtherExtentsError(f"{path}: {length} bytes of data are no field on a lattice {tuple(extents)}")
  return tuple(extents), found


def _example(sites: int) -> str:
  """Extents T,X,Y,Z of so many sites: a cube, as large as may be, over at least as many times."""
  side = max(n for n in range(1, math.isqrt(math.isqrt(sites)) + 1) if sites % n**3 == 0)
  return f"{sites // side**3},{side},{side},{side}"


def _stated_checksum(messages: Messages, message: list[lime.Record], path: object) -> tuple[int, int] | None:
  """(suma, sumb) from the field's own message, else from messages that have no binary data which it could be of."""
  xml = _xml(message, "scidac-checksum", path)
  if xml is None:
    free = [record for other in messages if not any(r.type in _BINARY for r in other) for record in other]
    xml = _xml(free, "scidac-checksum", path)
  if xml is None:
    return None
  a, b = (int(scidac.tag(xml, name, r"[0-9a-fA-F]{1,8}", path), 16) for name in ("suma", "sumb"))
  return a, b


def _texts(messages: Messages) -> dict[str, str]:
  """Short records as text by type; of one type the last."""
  short = [r for message in messages for r in message if r.type not in _BINARY]
  return {r.type: r.data.decode("utf-8", "replace") for r in short if r.data is not None}


def _other_plaquette(value: float, text: dict[str, str], digits: float) -> str | None:
  """Complaint about the plaquette in an xlf-info record (tmLQCD), where there is one: a courtesy, no part of ILDG."""
  found = re.search(r"plaquette\s*=\s*([^\s,;]+)", text.get("xlf-info", ""))
  return fields.disagreement("plaquette", value, found[1], digits) if found else None


def write(
  path: str | os.PathLike,
  u: np.ndarray,
  precision: int = 64,
  overwrite: bool = False,
  notes: Mapping[str, object] | None = None,
) -> None:
  """Write SU(3) links u [4, 3, 3, T, X, Y, Z] with checksum; atomically, refusing to replace a file unless asked.

  SU(2) and U(1) links [Nd, Nc, Nc, T, X, ...] become files of the same form, named as what they are. notes: lines `name =
  value` of a record xlf-info, tmLQCD's. Raises ValueError for links that are none, FileExistsError.
  """
  if precision not in (32, 64):
    raise ValueError(f"precision must be 32 or 64, not {precision}")
  u = np.asarray(u)
  u = fields.check_any_links(u) if fields.is_field(u) and u.shape[1] < 3 else fields.check_links(u)
  data = fields.to_file_order(u).astype(">c16" if precision == 64 else ">c8").tobytes()
  sums = scidac.Checksum()
  sums.add_sites(np.frombuffer(data, np.uint8).reshape(math.prod(u.shape[3:]), -1))
  tail = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<scidacChecksum>\n  <version>1.0</version>\n'
    f"  <suma>{sums.value[0]:08x}</suma>\n  <sumb>{sums.value[1]:08x}</sumb>\n</scidacChecksum>\n"
  )
  records = [
    ("ildg-format", _description(u, precision).encode()),
    ("ildg-binary-data", data),
    ("ildg-data-lfn", b"lfn://flowqcd/unregistered"),
    ("scidac-checksum", tail.encode()),
  ]
  with files.atomic(path, overwrite) as handle:
    if notes:
      lime.write(handle, [("xlf-info", "".join(f"{name} = {value}\n" for name, value in notes.items()).encode())])
    lime.write(handle, records)


def _description(u: np.ndarray, precision: int) -> str:
  """The record ildg-format."""
  nd, nc = u.shape[:2]
  directions = "" if nc == 3 else f"  <spacetime>{nd}</spacetime>\n"
  sizes = list(zip(_EXTENTS, u.shape[3:]))
  extents = "".join(f"<{name}>{n}</{name}>" for name, n in [*sizes[1:], sizes[0]])
  return (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ildgFormat xmlns="http://www.lqcd.org/ildg">\n'
    f"  <version>1.0</version>\n  <field>{fields.NAMES[nc]}</field>\n  <precision>{precision}</precision>\n"
    f"{directions}  {extents}\n</ildgFormat>\n"
  )
