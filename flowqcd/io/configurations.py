"""A configuration in any format that can be read: which one it is, its links, and what the file says of them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from flowqcd.io import fields, formats, hdf5, ildg, milc, nersc, openqcd, source
from flowqcd.io.files import FieldFileError, OtherExtentsError

Extents = tuple[int, ...]


class Info(NamedTuple):
  """What a file says, and what was found of its links as they lie in it.

  format: ILDG, SciDAC, bare LIME, NERSC, MILC version 5, openQCD or HDF5. group: U(1), SU(2) or SU(3); nc: its colours.
  lattice: (T, X, Y, Z), or fewer. precision: bits of a real number. plaquette: (1/Nc) Re tr P as computed, and stated by
  the file, or None. violation: max |U U^dag - 1|, |det U - 1|. checksum: verified, absent (the format has one, the file
  none) or none (the format has none). beta, kappa, boundary (phases of quarks, time first): None where the file does not
  state them.
  """

  format: str
  group: str
  nc: int
  lattice: Extents
  precision: int
  plaquette: float
  plaquette_stated: float | None
  violation: float
  checksum: str
  beta: float | None
  kappa: float | None
  boundary: tuple[float, ...] | None
  warnings: tuple[str, ...]


class _Said(NamedTuple):
  """Of one format's reader. stated: the plaquette; notes: beta, kappa, boundary as text by name."""

  format: str
  checksum: str
  stated: object
  notes: Mapping[str, object]
  warnings: tuple[str, ...] = ()


def read(
  path: str | os.PathLike, extents: Extents | None = None, *, strict: bool = False, reunitarise: bool = False
) -> tuple[np.ndarray, Info]:
  """Links u, complex128 [Nd, Nc, Nc, T, X, ...] (mu = t, x, ...), and what the file says, in whatever format it is.

  extents: (T, X, Y, Z), needed where the file has bare data; strict: links in 64 bits that are off the group by single
  precision's rounding are an error, not a warning; reunitarise: they are projected on the group. Warnings are in the info
  too. Raises FieldFileError naming the format and what is wrong, OSError; NoExtentsError names extents that would fit.
  """
  u, info = load(path, extents)
  drifted = fields.rounded(info.violation, info.precision)
  if drifted and strict and not reunitarise:
    raise FieldFileError(f"{path}: {drifted}, and reading is strict ({info.format} format)")
  kept = tuple(text for text in info.warnings if not (reunitarise and text == drifted))
  for text in kept:
    warnings.warn(f"{path}: {text}", stacklevel=2)
  return fields.reunitarise(u) if reunitarise else u, info._replace(warnings=kept)


def load(path: str | os.PathLike, extents: Extents | None = None) -> tuple[np.ndarray, Info]:
  """The same links as they are, and the warnings in the info alone."""
  name = _readable(path)
  try:
    u, info, said = _LOADERS[name](path, extents)
    lattice = u.shape[3:]
    if extents is not None and tuple(extents) != lattice:
      raise OtherExtentsError(f"{path}: the file's extents (T, X, ...) are {lattice}, the caller says {tuple(extents)}")
  except FieldFileError as error:
    raise type(error)(f"{error} ({name} format)") from None
  number = lambda value: None if value is None else _number(value)
  phases = [_number(word) for word in re.split(r"[,\s]+", str(said.notes.get("boundary", "")).strip())]
  return u, Info(
    said.format,
    fields.GROUPS[u.shape[1]],
    u.shape[1],
    lattice,
    info.precision,
    info.plaquette,
    number(said.stated),
    info.violation,
    said.checksum,
    number(said.notes.get("beta")),
    number(said.notes.get("kappa")),
    tuple(x for x in phases if x is not None) if len(phases) == len(lattice) and None not in phases else None,
    (*info.warnings, *said.warnings, *fields.found(fields.rounded(info.violation, info.precision))),
  )


def format_of(path: str | os.PathLike) -> str | None:
  """The name of the file's format by its first bytes and its size, None if unknown; not every one can be read."""
  return _recognised(path)[0]


def _recognised(path: str | os.PathLike) -> tuple[str | None, bytes]:
  with source.opened(path) as file:
    head = file.upto(formats.HEAD)
    name = formats.recognise(head)
    if name is None:
      # Without a magic number the size decides; that of gzip is known once it is unpacked.
      file.seek(file.limit)
      name = formats.recognise(head, file.tell())
  return name, head


def _readable(path: str | os.PathLike) -> str:
  """The name of the file's format. Raises FieldFileError where it is none that can be read."""
  name, head = _recognised(path)
  if name in _LOADERS:
    return name
  what = (
    f"a file in {name} format, which cannot be read" if name else f"in no known format (it starts {head[:8].hex()})"
  )
  raise FieldFileError(f"{path}: it is {what}; there are {', '.join(_LOADERS)}")


def _number(value: object) -> float | None:
  """The finite number that a text stands for, or None."""
  try:
    number = float(str(value))
  except ValueError:
    return None
  return number if np.isfinite(number) else None


def _lime(path: str | os.PathLike, extents: Extents | None) -> tuple[np.ndarray, fields.Info, _Said]:
  u, info = ildg.load(path, extents)
  kinds = {"ildg-format": "ILDG", "scidac-private-record-xml": "SciDAC"}
  name = next((name for record, name in kinds.items() if record in info.records), "bare LIME")
  # Lines of tmLQCD have several pairs, and a boundary is several numbers.
  pairs = re.findall(r"(\w+)[ \t]*=[ \t]*([^,;\s]+(?:[ \t]+[-+.\d]+)*)", info.records.get("xlf-info", ""))
  notes = dict(pairs)
  return u, info, _Said(name, "verified" if info.checksum else "absent", notes.get("plaquette"), notes)


def _nersc(path: str | os.PathLike, extents: Extents | None) -> tuple[np.ndarray, fields.Info, _Said]:
  u, info = nersc.load(path)
  header = info.header
  notes = {"beta": header.get("BETA"), "kappa": header.get("KAPPA"), "boundary": header.get("FERMION_BOUNDARY", "")}
  twisted = [key for key in header if key.startswith("BOUNDARY_") and header[key].upper() != "PERIODIC"]
  said = tuple(f"{key} is '{header[key][:40]}': links are taken as they are" for key in twisted)
  checksum = "verified" if "CHECKSUM" in header else "absent"
  return u, info, _Said("NERSC", checksum, header.get("PLAQUETTE"), notes, said)


def _milc(path: str | os.PathLike, extents: Extents | None) -> tuple[np.ndarray, fields.Info, _Said]:
  return *milc.read(path), _Said("MILC version 5", "verified", None, {})


def _openqcd(path: str | os.PathLike, extents: Extents | None) -> tuple[np.ndarray, fields.Info, _Said]:
  u, info = openqcd.load(path)
  return u, info, _Said("openQCD", "none", info.stated, {})


def _hdf5(path: str | os.PathLike, extents: Extents | None) -> tuple[np.ndarray, fields.Info, _Said]:
  u, info = hdf5.load(path)
  return u, info, _Said("HDF5", "verified" if info.has_digest else "absent", info.stated, info.notes)


_LOADERS: dict[str, Callable[[str | os.PathLike, Extents | None], tuple[np.ndarray, fields.Info, _Said]]] = {
  "LIME": _lime,
  "NERSC": _nersc,
  "MILC version 5": _milc,
  "openQCD": _openqcd,
  "HDF5": _hdf5,
}
