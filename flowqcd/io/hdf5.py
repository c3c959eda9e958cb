"""HDF5 files with a digest, and a configuration of U(1), SU(2) or SU(3) in one, in 2 to 4 dimensions.

A configuration is the dataset `u`, complex [Nd, Nc, Nc, T, X, ...] with direction 0 the time. Attributes of the file are
`field` (su3gauge, su2gauge or u1gauge), `plaquette`, and what else its writer has noted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np

from flowqcd.io import digests, fields, files
from flowqcd.io.files import FieldFileError


def opened(path: str | os.PathLike) -> h5py.File:
  """For reading, without HDF5's locks, which some file systems refuse. Python's handles end the process on bad files."""
  return h5py.File(path, "r", locking=False)


def image(columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> bytes:
  """The bytes of an HDF5 file after its user block. In memory: on disk, HDF5 loses the errors that it meets on closing."""
  size = sum(x.nbytes for x in columns.values())
  memory = {"driver": "core", "backing_store": False, "block_size": max(1 << 16, size // 4)}
  with h5py.File("part", "w", userblock_size=digests.BLOCK, **memory) as part:
    for name, x in columns.items():
      part.create_dataset(name, data=x)
    part.attrs.update(attributes)
    part.flush()
    return part.id.get_file_image()


def write_columns(
  path: str | os.PathLike, columns: Mapping[str, np.ndarray], attributes: Mapping[str, Any], overwrite: bool = False
) -> None:
  """One file of arrays by name, whole or not at all, with its digest. Raises FileExistsError unless overwrite, OSError."""
  content = image(columns, attributes)
  with files.atomic(path, overwrite) as handle:
    handle.write(digests.block(content))
    handle.write(content)


class Info(NamedTuple):
  """What the file says and what was computed of its links. extents: (T, X, ...). has_digest: that it agrees with.

  violation: max |U U^dag - 1|, |det U - 1|. stated: the plaquette that it states, or None. notes: its other attributes.
  """

  extents: tuple[int, ...]
  precision: int
  plaquette: float
  violation: float
  has_digest: bool
  stated: float | None
  notes: dict[str, Any]
  warnings: tuple[str, ...] = ()


def write(
  path: str | os.PathLike,
  u: np.ndarray,
  precision: int = 64,
  overwrite: bool = False,
  notes: Mapping[str, object] | None = None,
) -> None:
  """Write links u [Nd, Nc, Nc, T, X, ...]; atomically, refusing to replace a file unless asked.

  notes: further attributes, numbers or text. Raises ValueError for links that are none, FileExistsError.
  """
  if precision not in (32, 64):
    raise ValueError(f"precision must be 32 or 64, not {precision}")
  u = fields.check_any_links(u).astype("<c8" if precision == 32 else "<c16")
  own = {"field": fields.NAMES[u.shape[1]], "plaquette": fields.plaquette(u)}
  write_columns(path, {"u": u}, {**(notes or {}), **own}, overwrite)


def load(path: str | os.PathLike) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [Nd, Nc, Nc, T, X, ...], as they are, and what the file says.

  Digest, plaquette and unitarity are verified; a file without a digest is read with a warning in the info. Raises
  FieldFileError.
  """
  with open(path, "rb") as handle:
    digest = digests.state(handle)
    size = os.fstat(handle.fileno()).st_size
  if digest == "damaged":
    raise FieldFileError(f"{path}: the content is not that of its SHA-256: it is damaged")
  try:
    with opened(path) as file:
      u, notes = _content(file, size, path)
  except FieldFileError:
    raise
  except Exception as error:  # h5py raises whatever it stumbles upon.
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    raise FieldFileError(f"{path}: it cannot be read as HDF5 ({text})") from None
  bits = u.dtype.itemsize * 4
  u = u.astype(np.complex128)
  drift = fields.drift(u)
  fields.check_unitary(drift, bits, digest == "ok", path)
  plaquette, stated = fields.plaquette(u), notes.pop("plaquette", None)
  wrong = stated is not None and fields.disagreement(
    "plaquette", plaquette, str(stated), fields.stated_digits(drift, bits)
  )
  if wrong:
    raise FieldFileError(f"{path}: {wrong}")
  said = () if digest == "ok" else ("no digest to verify",)
  number = None if stated is None else float(stated)
  return u, Info(u.shape[3:], bits, plaquette, drift.worst, digest == "ok", number, notes, said)


def _content(file: h5py.File, size: int, path: object) -> tuple[np.ndarray, dict[str, Any]]:
  """The links in the file's precision, and its attributes but `field`."""
  notes = dict(file.attrs)
  field, links = str(notes.pop("field", "")), file.get("u")
  if field not in fields.NAMES.values() or not isinstance(links, h5py.Dataset):
    raise FieldFileError(
      f"{path}: no configuration in HDF5, which has the dataset 'u' and an attribute 'field', one of "
      f"{', '.join(fields.NAMES.values())}; of ensembles, `flowqcd export` writes configurations"
    )
  if links.dtype not in (np.complex64, np.complex128) or links.nbytes > size:
    raise FieldFileError(f"{path}: the links are {links.dtype} {links.shape}, {links.nbytes} bytes in a file of {size}")
  u = links[()]
  if not fields.is_field(u) or fields.NAMES[u.shape[1]] != field:
    raise FieldFileError(f"{path}: the links have the shape {u.shape}, which is no {field}")
  return u, notes
