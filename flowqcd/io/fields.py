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
from typing import NamedTuple, Protocol

import jax
import numpy as np

from flowqcd.io.files import FieldFileError
from flowqcd.io.source import Source
from flowqcd.lattice import group, loops, precision

ROUNDING = {32: 5e-5, 64: 1e-10}
"""How far from SU(3) links may be by rounding. At 32 bits there is room for what `check_links` lets pass: rebuilding a
third row doubles it."""
GROUPS = {1: "U(1)", 2: "SU(2)", 3: "SU(3)"}
"""Names by the number of colours."""
NAMES = {1: "u1gauge", 2: "su2gauge", 3: "su3gauge"}
"""The same as files have them."""
_WRITABLE = 2e-5
_SLAB = 1 << 22


class Layout(NamedTuple):
  """How links lie in a file, sites with t slowest, then z, y, x. extents: (T, X, Y, Z), or fewer in 2 and 3 dimensions.

  dtype: NumPy's name of the complex numbers, as ">c16"; rows: nc, or 2 of each matrix of SU(3).
  """

  extents: tuple[int, ...]
  dtype: str
  rows: int = 3
  nc: int = 3

  @property
  def bits(self) -> int:
    """Of a real number: 32 or 64."""
    return np.dtype(self.dtype).itemsize * 4

  @property
  def site_bytes(self) -> int:
    """Of the links at a site, one for each direction."""
    return len(self.extents) * self.rows * self.nc * np.dtype(self.dtype).itemsize

  @property
  def size(self) -> int:
    """Of the whole field in bytes."""
    return math.prod(self.extents) * self.site_bytes

  def __str__(self) -> str:
    return f"a lattice {self.extents} at {self.bits} bits" + (" by two rows" if self.rows < self.nc else "")


class Drift(NamedTuple):
  """How far links are from the group. worst: the largest `violations`, NaN where one is; off: how many of `links` are
  farther than double precision's rounding."""

  worst: float
  off: int
  links: int


def read_links(source: Source, layout: Layout, digest: Callable[[np.ndarray], None]) -> tuple[np.ndarray, Drift]:
  """Links u, complex128 [Nd, Nc, Nc, T, X, ...] (mu = t, x, ...), and how far they are from the group.

  digest: sees the bytes of all sites in the file's order, uint8 [n, site_bytes] at a time. Raises FieldFileError.
  """
  source.claim(layout.size, str(layout))
  nd, nc = len(layout.extents), layout.nc
  t, x, y, z = (*layout.extents, 1, 1)[:4]
  u = np.empty((nd, nc, nc, t, x, y, z), np.complex128)
  step = max(1, min(z, _SLAB // (y * x * layout.site_bytes)))
  drifts = []
  for time in range(t):
    for start in range(0, z, step):
      slab = u[:, :, :, time, :, :, start : start + step]
      raw = source.read(slab.shape[-1] * y * x * layout.site_bytes, str(layout))
      digest(np.frombuffer(raw, np.uint8).reshape(-1, layout.site_bytes))
      data = np.frombuffer(raw, layout.dtype).reshape(-1, y, x, nd, layout.rows, nc)
      with np.errstate(all="ignore"):
        for i, mu in enumerate((*range(1, nd), 0)):
          slab[mu, : layout.rows] = data[:, :, :, i].transpose(3, 4, 2, 1, 0)
        if layout.rows < nc:
          slab[:, 2] = _third_row(slab)
      drifts.append(_drift_of(slab))
  return u.reshape(nd, nc, nc, *layout.extents), _all(drifts)


def drift(u: np.ndarray) -> Drift:
  """How far links [Nd, Nc, Nc, *L] are from the group."""
  return _all([_drift_of(u[:, :, :, time]) for time in range(u.shape[3])])


def _drift_of(u: np.ndarray) -> Drift:
  each = violations(u)
  return Drift(float(each.max()), int(np.count_nonzero(~(each <= ROUNDING[64]))), each.size)


def _all(drifts: list[Drift]) -> Drift:
  worst, off, links = (np.array(column) for column in zip(*drifts))
  return Drift(float(worst.max()), int(off.sum()), int(links.sum()))


def to_file_order(u: np.ndarray) -> np.ndarray:
  """u [4, Nc, Nc, T, X, Y, Z], mu = t, x, y, z -> [T, Z, Y, X, mu = x, y, z, t, Nc, Nc]; in Nd = 2, 3 without z or y."""
  nd = u.shape[0]
  return u[[*range(1, nd), 0]].transpose(3, *range(2 + nd, 3, -1), 0, 1, 2)


def complete_rows(u: np.ndarray) -> np.ndarray:
  """The links that a file with two rows of each stands for: the third their conjugate cross product. [4, 3, 3, *L]."""
  return np.concatenate([u[:, :2], _third_row(u)[:, None]], axis=1)


def _third_row(u: np.ndarray) -> np.ndarray:
  return np.cross(u[:, 0], u[:, 1], axis=1).conj()


def violations(u: np.ndarray) -> np.ndarray:
  """max |U U^dag - 1| and, for Nc > 1, |det U - 1| of each link, NaN or infinite where numbers are.

  [Nd, Nc, Nc, ...] -> [Nd, ...].
  """
  nc = u.shape[1]
  with np.errstate(all="ignore"):
    worst = np.zeros(()) if nc == 1 else np.abs(_determinant(u) - 1)
    for a in range(nc):
      for b in range(a + 1):
        product = np.sum(u[:, a] * u[:, b].conj(), axis=1)
        worst = np.maximum(worst, np.abs(product - (a == b)))
  return worst


def _determinant(u: np.ndarray) -> np.ndarray:
  """For Nc = 2, 3. [Nd, Nc, Nc, ...] -> [Nd, ...]."""
  if u.shape[1] == 2:
    return u[:, 0, 0] * u[:, 1, 1] - u[:, 0, 1] * u[:, 1, 0]
  return np.sum(_third_row(u).conj() * u[:, 2], axis=1)


def check_unitary(drift: Drift, bits: int, vouched: bool, path: object) -> None:
  """Raise FieldFileError for links read that are off the group by more than single precision's rounding.

  vouched: by a checksum that sees every damage. Without one, a few links that are off among many that are not are an
  error too: rounding is everywhere.
  """
  if not math.isfinite(drift.worst):
    raise FieldFileError(f"{path}: some numbers are not finite, or too large for links")
  limit = ROUNDING[32]
  if drift.worst > limit:
    raise FieldFileError(f"{path}: links are not special unitary (off by {drift.worst:.1e}, allowed {limit:.0e})")
  if drift.worst > ROUNDING[bits] and not vouched and 2 * drift.off < drift.links:
    raise FieldFileError(
      f"{path}: {drift.off} of {drift.links} links off the group by up to {drift.worst:.1e}: damage, not rounding"
    )


def rounded(violation: float, bits: int) -> str | None:
  """A complaint about links that are off the group by single precision's rounding in 64 bits."""
  if violation <= ROUNDING[bits]:
    return None
  return f"links at {bits} bits are special unitary to {violation:.1e} only (reunitarise=True projects them)"


_nearest = precision.of_input(jax.jit(group.polar))


def reunitarise(u: np.ndarray) -> np.ndarray:
  """The nearest matrix of the group to each link, in place, one time slice after another. [Nd, Nc, Nc, *L]."""
  for time in range(u.shape[3]):
    here = u[:, :, :, time]
    here[...] = np.asarray(_nearest(here.reshape(*here.shape[:3], -1))).reshape(here.shape)
  return u


def check_links(u: np.ndarray) -> np.ndarray:
  """SU(3) links about to be written, as complex128. Raises ValueError for other shapes and groups, and links outside."""
  u = np.asarray(u, np.complex128)
  if u.ndim != 7 or u.shape[:3] != (4, 3, 3) or u.size == 0:
    what = f"{GROUPS[u.shape[1]]} links" if is_field(u) else "an array"
    raise ValueError(f"this format holds SU(3) links [4, 3, 3, T, X, Y, Z], not {what} {u.shape}")
  return _in_group(u)


def check_any_links(u: np.ndarray) -> np.ndarray:
  """Links of U(1), SU(2) or SU(3) about to be written, as complex128. Raises ValueError like `check_links`."""
  u = np.asarray(u, np.complex128)
  if not is_field(u):
    raise ValueError(f"links [Nd, Nc, Nc, T, X, ...] in 2 to 4 dimensions, with 1 to 3 colours, are no array {u.shape}")
  return _in_group(u)


def is_field(u: np.ndarray) -> bool:
  """Whether an array has the shape of links [Nd, Nc, Nc, *L] that there are: Nd = 2, 3, 4 and Nc = 1, 2, 3."""
  nd = u.ndim - 3
  return nd in (2, 3, 4) and u.shape[0] == nd and u.shape[1] == u.shape[2] and u.shape[1] in GROUPS and u.size > 0


def _in_group(u: np.ndarray) -> np.ndarray:
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


def found(*complaints: str | None) -> tuple[str, ...]:
  """Those complaints that there are."""
  return tuple(complaint for complaint in complaints if complaint)


class Info(Protocol):
  """What every reader says of a file."""

  @property
  def precision(self) -> int:
    """Bits of a real number."""
    ...

  @property
  def plaquette(self) -> float:
    """As computed."""
    ...

  @property
  def violation(self) -> float:
    """max |U U^dag - 1|, |det U - 1|."""
    ...

  @property
  def warnings(self) -> tuple[str, ...]:
    """What is worth a warning, beside drift from the group."""
    ...


def settle(path: str | os.PathLike, u: np.ndarray, info: Info, project: bool) -> np.ndarray:
  """The links read, projected on the group in place where asked for; the reader's caller is warned of what remains."""
  drifted = None if project else rounded(info.violation, info.precision)
  for complaint in (*info.warnings, *found(drifted)):
    warnings.warn(f"{path}: {complaint}", stacklevel=3)
  return reunitarise(u) if project else u


def plaquette(u: np.ndarray) -> float:
  """(1/Nc) Re tr P averaged over plaquettes, as observables.mean_plaquette has it. [Nd, Nc, Nc, *L]."""
  return float(np.mean(plaquettes(u)))


def plaquettes(u: np.ndarray) -> np.ndarray:
  """(1/Nc) Re tr P averaged over the plaquettes of each plane, in the order of loops.planes; time's are the first Nd - 1.

  Plane after plane of fixed (t, x), whose products stay in the processor's cache. [Nd, Nc, Nc, *L] -> [Nd (Nd - 1)/2].
  """
  nd, nc = u.shape[:2]
  u = u.reshape(*u.shape, *[1] * (4 - nd))
  times, width = u.shape[3:5]
  total = np.zeros(math.comb(nd, 2))
  for t, x in np.ndindex(times, width):
    here = u[:, :, :, t, x]
    ahead = u[:, :, :, (t + 1) % times, x], u[:, :, :, t, (x + 1) % width]
    for plane, (mu, nu) in enumerate(loops.planes(nd)):
      right, left = _mul(here[mu], _neighbour(here, ahead, nu, mu)), _mul(here[nu], _neighbour(here, ahead, mu, nu))
      total[plane] += np.vdot(left, right).real
  return total / (nc * math.prod(u.shape[3:]))


def _neighbour(here: np.ndarray, ahead: tuple[np.ndarray, np.ndarray], link: int, direction: int) -> np.ndarray:
  """U_link(x + direction) in a plane of y and z; ahead: the planes at t + 1 and at x + 1."""
  return ahead[direction][link] if direction < 2 else np.roll(here[link], -1, axis=direction)


def _mul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """The product of matrices [i, k, ...] and [k, j, ...]."""
  return precision.added(a[:, k, None] * b[None, k] for k in range(a.shape[1]))


def link_trace(u: np.ndarray) -> float:
  """(1/Nc) Re tr U averaged over links. [Nd, Nc, Nc, ...]."""
  return float(sum(np.real(u[:, a, a]).mean() for a in range(u.shape[1])) / u.shape[1])
