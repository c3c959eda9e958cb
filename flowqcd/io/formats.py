"""Formats of gauge configurations, known by their first bytes."""

from __future__ import annotations

import struct

_READERS = {
  "LIME": "flowqcd.io.ildg",
  "NERSC": "flowqcd.io.nersc",
  "MILC version 5": "flowqcd.io.milc",
  "openQCD": "flowqcd.io.openqcd",
  "HDF5": "flowqcd.io.hdf5",
}
_MAGIC = {
  b"\x45\x67\x89\xab": "LIME",
  b"BEGIN_HEADER": "NERSC",
  b"\x87\x4e\0\0": "MILC version 5",
  b"\0\0\x4e\x87": "MILC version 5",
  b"\x89HDF\r\n\x1a\n": "HDF5",
  b"flowqcd HDF5": "HDF5",
  b"PK\x03\x04": "zip or npz",
  b"\x93NUMPY": "npy",
  b"BZh": "bzip2",
  b"\xfd7zXZ\0": "xz",
  b"\x28\xb5\x2f\xfd": "zstd",
}
HEAD = 32
"""Bytes that `recognise` looks at."""


def recognise(head: bytes, size: int | None = None) -> str | None:
  """The format's name, None if unknown. head: the first 32 bytes; size: of the whole file, None if unknown.

  openQCD and HiRep have no magic number: they are known by extents and a plaquette that fit the size.
  """
  for magic, name in _MAGIC.items():
    if head.upper().startswith(magic) if name == "NERSC" else head.startswith(magic):
      return name
  if len(head) < HEAD or size is None:
    return None
  t, x, y, z, plaquette = struct.unpack_from("<4id", head)
  if min(t, x, y, z) > 0 and size == 24 + 4 * t * x * y * z * 144 and abs(plaquette) <= 3:
    return "openQCD"
  nc, t, x, y, z, plaquette = struct.unpack_from(">5id", head)
  if min(t, x, y, z) > 0 and nc > 1 and size == 28 + 4 * t * x * y * z * nc * nc * 16 and abs(plaquette) <= 1:
    return "HiRep"
  return None


def advice(head: bytes, size: int | None = None) -> str:
  """What to tell who offers such a file to another format's reader: "; it is ...", empty for an unknown format."""
  name = recognise(head, size)
  if name is None:
    return ""
  reader = f", which {_READERS[name]} reads" if name in _READERS else ", which cannot be read"
  return f"; its first bytes are those of a file in {name} format{reader}"
