"""openQCD's configurations: extents and plaquette, then the links around each odd site; little-endian. Only read.

Odd sites with t slowest and z fastest; at each +t, -t, +x, -x, +y, -y, +z, -z: the link that leaves it and the one that
arrives from behind, both in the positive direction; 3x3 row-major in double precision.
"""

from __future__ import annotations

import math
import os
import struct
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, formats, source
from flowqcd.io.files import FieldFileError

_HEADER = struct.Struct("<4id")


class Info(NamedTuple):
  """What was computed of the file's links, and the plaquette that it states. extents: (T, X, Y, Z).

  violation: max |U U^dag - 1|, |det U - 1|. warnings: none beside drift.
  """

  extents: tuple[int, int, int, int]
  plaquette: float
  violation: float
  stated: float
  precision: int = 64
  warnings: tuple[str, ...] = ()


def read(path: str | os.PathLike, reunitarise: bool = False) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), of a lattice that is periodic in time.

  The file may be gzip. reunitarise: project links on SU(3). The plaquette and unitarity are verified; the format has no
  checksum. Raises FieldFileError.
  """
  u, info = load(path)
  return fields.settle(path, u, info, reunitarise), info


def load(path: str | os.PathLike) -> tuple[np.ndarray, Info]:
  """The links as they are, and the info with what `read` warns of beside drift from the group."""
  with source.opened(path) as file:
    extents, stated = _header(file)
    u = np.empty((4, 3, 3, *extents), np.complex128)
    for time in range(extents[0]):
      _read_slice(file, u, time)
    file.require_padding()
  drift = fields.drift(u)
  fields.check_unitary(drift, 64, False, path)
  plaquette = fields.plaquette(u)
  wrong = fields.disagreement("plaquette", plaquette, repr(stated / 3), fields.stated_digits(drift, 64))
  if wrong:
    raise FieldFileError(f"{path}: {wrong}")
  return u, Info(extents, plaquette, drift.worst, stated / 3)


def _header(file: source.Source) -> tuple[tuple[int, int, int, int], float]:
  """Extents, and three times the plaquette."""
  head = file.upto(formats.HEAD)
  if len(head) < _HEADER.size:
    raise FieldFileError(f"{file.path}: truncated in the header")
  size = None if file.packed else file.limit
  if formats.recognise(head, size) not in ("openQCD", None):
    raise FieldFileError(f"{file.path}: no openQCD file{formats.advice(head, size)}")
  t, x, y, z, stated = _HEADER.unpack_from(head)
  if min(t, x, y, z) < 1 or any(n % 2 for n in (t, x, y, z)):
    raise FieldFileError(f"{file.path}: no openQCD file: extents {t, x, y, z} must be even and positive")
  file.seek(_HEADER.size)
  file.claim(4 * math.prod((t, x, y, z)) * 144, f"a lattice {t, x, y, z}")
  return (t, x, y, z), stated


def _read_slice(file: source.Source, u: np.ndarray, time: int) -> None:
  """The links around the odd sites of a time slice."""
  extents = u.shape[3:]
  space = np.nonzero((time + np.indices(extents[1:]).sum(axis=0)) % 2)
  site = np.stack([np.full_like(space[0], time), *space])
  raw = file.read(site.shape[1] * 8 * 144, f"time slice {time}")
  data = np.frombuffer(raw, "<c16").reshape(-1, 4, 2, 3, 3).transpose(1, 2, 3, 4, 0)
  for mu in range(4):
    behind = site.copy()
    behind[mu] = (behind[mu] - 1) % extents[mu]
    u[mu][(slice(None), slice(None), *site)] = data[mu, 0]
    u[mu][(slice(None), slice(None), *behind)] = data[mu, 1]
