"""What gauge-field formats have in common: the order of numbers in a file, and the checks of a field.

A field is read slab by slab into its final place, so that reading takes little memory beyond the links. The checks are
in NumPy for that reason: the observables in JAX take temporaries of many times the field, and time to compile.
"""

from __future__ import annotations

import decimal
import math
import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from flowqcd.io.files import FieldFileError
from flowqcd.io.source import Source
from flowqcd.lattice import group, loops, precision

ROUNDING = {32: 5e-5, 64: 1e-10}
"""How far from SU(3) links may be by rounding. At 32 bits there is room for what `check_links` lets pass: rebuilding a
third row doubles it."""
_WRITABLE = 2e-5
_SLAB = 1 << 22


class Layout(NamedTuple):
  """How links lie in a file, sites with t slowest, then z, y, x. extents: (T, X, Y, Z); rows: 3, or 2 of each matrix.

  dtype: NumPy's name of the complex numbers, as ">c16".
  """

  extents: tuple[int, int, int, int]
  dtype: str
  rows: int = 3

  @property
  def bits(self) -> int:
    """Of a real number: 32 or 64."""
    return np.dtype(self.dtype).itemsize * 4

  @property
  def site_bytes(self) -> int:
    """Of the four links at a site."""
    return 4 * self.rows * 3 * np.dtype(self.dtype).itemsize

  @property
  def size(self) -> int:
    """Of the whole field in bytes."""
    return math.prod(self.extents) * self.site_bytes

  def __str__(self) -> str:
    return f"a lattice {self.extents} at {self.bits} bits" + (" by two rows" if self.rows == 2 else "")


class Drift(NamedTuple):
  """How far links are from SU(3). worst: the largest `violations`, NaN where one is; off: how many of `links` are farther
  than double precision's rounding."""

  worst: float
  off: int
  links: int


def read_links(source: Source, layout: Layout, digest: Callable[[np.ndarray], None]) -> tuple[np.ndarray, Drift]:
  """Links u, complex128 [4, 3, 3, T, X, Y, Z] (mu = t, x, y, z), and how far they are from SU(3).

  digest: sees the bytes of all sites in the file's order, uint8 [n, site_bytes] at a time. Raises FieldFileError.
  """
  source.claim(layout.size, str(layout))
  t, x, y, z = layout.extents
  u = np.empty((4, 3, 3, *layout.extents), np.complex128)
  step = max(1, min(z, _SLAB // (y * x * layout.site_bytes)))
  drifts = []
  for time in range(t):
    for start in range(0, z, step):
      slab = u[:, :, :, time, :, :, start : start + step]
      raw = source.read(slab.shape[-1] * y * x * layout.site_bytes, str(layout))
      digest(np.frombuffer(raw, np.uint8).reshape(-1, layout.site_bytes))
      data = np.frombuffer(raw, layout.dtype).reshape(-1, y, x, 4, layout.rows, 3)
      with np.errstate(all="ignore"):
        for i, mu in enumerate((1, 2, 3, 0)):
          slab[mu, : layout.rows] = data[:, :, :, i].transpose(3, 4, 2, 1, 0)
        if layout.rows == 2:
          slab[:, 2] = _third_row(slab)
      drifts.append(_drift_of(slab))
  return u, _all(drifts)


def drift(u: np.ndarray) -> Drift:
  """How far links [4, 3, 3, T, X, Y, Z] are from SU(3)."""
  return _all([_drift_of(u[:, :, :, time]) for time in range(u.shape[3])])


def _drift_of(u: np.ndarray) -> Drift:
  each = violations(u)
  return Drift(float(each.max()), int(np.count_nonzero(~(each <= ROUNDING[64]))), each.size)


def _all(drifts: list[Drift]) -> Drift:
  worst, off, links = (np.array(column) for column in zip(*drifts))
  return Drift(float(worst.max()), int(off.sum()), int(links.sum()))


def to_file_order(u: np.ndarray) -> np.ndarray:
  """u [4, Nc, Nc, T, X, Y, Z], mu = t, x, y, z -> [T, Z, Y, X, mu = x, y, z, t, Nc, Nc]."""
  return u[[1, 2, 3, 0]].transpose(3, 6, 5, 4, 0, 1, 2)


def complete_rows(u: np.ndarray) -> np.ndarray:
  """The links that a file with two rows of each stands for: the third their conjugate cross product. [4, 3, 3, *L]."""
  return np.concatenate([u[:, :2], _third_row(u)[:, None]], axis=1)


def _third_row(u: np.ndarray) -> np.ndarray:
  return np.cross(u[:, 0], u[:, 1], axis=1).conj()


def violations(u: np.ndarray) -> np.ndarray:
  """max |U U^dag - 1| and |det U - 1| of each link, NaN or infinite where numbers are. [4, 3, 3, ...] -> [4, ...]."""
  with np.errstate(all="ignore"):
    worst = np.abs(np.sum(_third_row(u).conj() * u[:, 2], axis=1) - 1)
    for a in range(3):
      for b in range(a + 1):
        product = np.sum(u[:, a] * u[:, b].conj(), axis=1)
        worst = np.maximum(worst, np.abs(product - (a == b)))
  return worst


def check_unitary(drift: Drift, bits: int, vouched: bool, path: object) -> str | None:
  """Judge links read: a complaint at 64 bits up to single precision's rounding, FieldFileError beyond.

  vouched: by a checksum that sees every damage. Without one, a few links that are off among many that are not are an
  error too: rounding is everywhere.
  """
  if not math.isfinite(drift.worst):
    raise FieldFileError(f"{path}: some numbers are not finite, or too large for links")
  limit = ROUNDING[32]
  if drift.worst > limit:
    raise FieldFileError(f"{path}: links are not special unitary (off by {drift.worst:.1e}, allowed {limit:.0e})")
  if drift.worst <= ROUNDING[bits]:
    return None
  if not vouched and 2 * drift.off < drift.links:
    raise FieldFileError(
      f"{path}: {drift.off} of {drift.links} links off the group by up to {drift.worst:.1e}: damage, not rounding"
    )
  return f"links at {bits} bits are special unitary to {drift.worst:.1e} only (reunitarise=True projects them)"


_nearest = precision.of_input(jax.jit(group.polar))


def reunitarise(u: np.ndarray) -> np.ndarray:
  """The nearest SU(3) matrix to each link, in place, one time slice after another. [4, 3, 3, T, X, Y, Z]."""
  for time in range(u.shape[3]):
    here = u[:, :, :, time]
    here[...] = np.asarray(_nearest(here.reshape(4, 3, 3, -1))).reshape(here.shape)
  return u


def check_links(u: np.ndarray) -> np.ndarray:
  """Links about to be written, as complex128. Raises ValueError for a wrong shape or links outside SU(3)."""
  u = np.asarray(u, np.complex128)
  if u.ndim != 7 or u.shape[:3] != (4, 3, 3) or u.size == 0:
    raise ValueError(f"these formats hold SU(3) links [4, 3, 3, T, X, Y, Z], not an array {u.shape}")
  # Links computed in single precision are welcome; what is no link at all is not.
  worst = drift(u).worst
  if not worst <= _WRITABLE:
    raise FieldFileError(
      f"the links to be written are not special unitary (off by {worst:.1e}, allowed {_WRITABLE:.0e})"
    )
  return u


def disagreement(what: str, value: float, stated: str, digits: float) -> str | None:
  """How a computed value and what a file states differ, beyond `digits` and half a unit of the last digit printed there.

  None where they agree.
  """
  try:
    number = decimal.Decimal(stated)
    unit = float(decimal.Decimal(1).scaleb(int(number.as_tuple().exponent)))
  except (decimal.InvalidOperation, TypeError, ValueError):  # ValueError: NaN and infinity have no exponent.
    return f"the {what} '{stated[:40]}' is no number"
  if abs(value - float(number)) <= max(digits, 0.51 * unit):
    return None
  return f"the {what} is {value:.12f}, the file says {stated[:40]}"


def stated_digits(drift: Drift, bits: int) -> float:
  """To what a stated plaquette is believed. Writers compute it in the precision of the links, which their drift tells."""
  return 1e-6 if bits == 32 or drift.worst > ROUNDING[64] else 1e-9


def warn(path: str | os.PathLike, *complaints: str | None) -> None:
  """Warn the caller of the reader that calls this, once for each complaint there is."""
  for complaint in complaints:
    if complaint is not None:
      warnings.warn(f"{path}: {complaint}", stacklevel=3)


def plaquette(u: np.ndarray) -> float:
  """(1/Nc) Re tr P averaged over plaquettes, as observables.mean_plaquette has it. [4, 3, 3, T, X, Y, Z].

  Plane after plane of fixed (t, x), whose products stay in the processor's cache.
  """
  times, width = u.shape[3:5]
  total = 0.0
  for t, x in np.ndindex(times, width):
    here = u[:, :, :, t, x]
    ahead = u[:, :, :, (t + 1) % times, x], u[:, :, :, t, (x + 1) % width]
    for mu, nu in loops.planes(4):
      right, left = _mul(here[mu], _neighbour(here, ahead, nu, mu)), _mul(here[nu], _neighbour(here, ahead, mu, nu))
      total += np.vdot(left, right).real
  return float(total) / (u.shape[1] * len(loops.planes(4)) * math.prod(u.shape[3:]))


def _neighbour(here: np.ndarray, ahead: tuple[np.ndarray, np.ndarray], link: int, direction: int) -> np.ndarray:
  """U_link(x + direction) in a plane of y and z; ahead: the planes at t + 1 and at x + 1."""
  return ahead[direction][link] if direction < 2 else np.roll(here[link], -1, axis=direction)


def _mul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """The product of matrices [i, k, ...] and [k, j, ...]."""
  return precision.added(a[:, k, None] * b[None, k] for k in range(a.shape[1]))


def link_trace(u: np.ndarray) -> float:
  """(1/Nc) Re tr U averaged over links. [4, 3, 3, ...]."""
  return float(sum(np.real(u[:, a, a]).mean() for a in range(u.shape[1])) / u.shape[1])
