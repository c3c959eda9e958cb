"""What gauge-field formats have in common: the order of numbers in a file, and the checks of a field."""

from __future__ import annotations

import decimal
import warnings

import numpy as np

from flowqcd.io.files import FieldFileError
from flowqcd.theory import observables

_TOLERANCE = {32: 2e-5, 64: 1e-10}
"""How far a link may be from SU(N): rounding of either precision, with room for the writer's own drift."""


def from_file_order(data: np.ndarray, extents: tuple[int, int, int, int]) -> np.ndarray:
  """[z-ordered sites (t slowest, then z, y, x), mu = x,y,z,t, a, b] -> u [4, a, b, T, X, Y, Z], mu = t,x,y,z.

  extents: (T, X, Y, Z).
  """
  t, x, y, z = extents
  field = data.reshape(t, z, y, x, 4, *data.shape[-2:])
  moved = field.transpose(4, 5, 6, 0, 3, 2, 1)
  return np.ascontiguousarray(moved[[3, 0, 1, 2]]).astype(np.complex128)


def to_file_order(u: np.ndarray) -> np.ndarray:
  """The inverse: u [4, Nc, Nc, T, X, Y, Z] -> [T, Z, Y, X, mu = x,y,z,t, Nc, Nc]."""
  return u[[1, 2, 3, 0]].transpose(3, 6, 5, 4, 0, 1, 2)


def complete_rows(two: np.ndarray) -> np.ndarray:
  """SU(3) matrices from their first two rows, the third being their conjugate cross product. [..., 2, 3] -> [..., 3, 3]."""
  third = np.cross(two[..., 0, :], two[..., 1, :]).conj()
  return np.concatenate([two, third[..., None, :]], axis=-2)


def check_unitary(u: np.ndarray, bits: int, path: object) -> None:
  """Raise FieldFileError unless all links are finite, unitary and of determinant one, to the precision's rounding."""
  if not np.isfinite(u.view(np.float64)).all():
    raise FieldFileError(f"{path}: some numbers are not finite")
  m = np.moveaxis(u, (1, 2), (-2, -1))
  with np.errstate(all="ignore"):
    worst = np.abs(m @ m.conj().swapaxes(-1, -2) - np.eye(m.shape[-1])).max()
    det = np.abs(np.linalg.det(m) - 1).max() if worst < 1 else np.inf
  limit = _TOLERANCE[bits]
  if not max(worst, det) <= limit:
    raise FieldFileError(
      f"{path}: links are not special unitary (off by {max(worst, det):.1e}, allowed {limit:.0e} at {bits} bits)"
    )


def check_links(u: np.ndarray) -> np.ndarray:
  """Links about to be written, as complex128. Raises ValueError for a wrong shape or links outside SU(3)."""
  u = np.asarray(u, np.complex128)
  if u.ndim != 7 or u.shape[:3] != (4, 3, 3):
    raise ValueError(f"these formats hold SU(3) links [4, 3, 3, T, X, Y, Z], not an array {u.shape}")
  # Links computed in single precision are welcome; what is no link at all is not.
  check_unitary(np.ascontiguousarray(u), 32, "the links to be written")
  return u


def check_stated(what: str, value: float, stated: str | None, digits: float, path: object) -> None:
  """Compare a computed value with what a header states, to `digits` or half a unit of the last digit printed there.

  None, not stated, is a warning. Raises FieldFileError where they differ or the text is no number.
  """
  if stated is None:
    warnings.warn(f"{path}: the header states no {what} to check", stacklevel=4)
    return
  try:
    number = decimal.Decimal(stated)
    unit = float(decimal.Decimal(1).scaleb(number.as_tuple().exponent))
  except (decimal.InvalidOperation, TypeError, ValueError):  # TypeError: NaN and infinity have no exponent.
    raise FieldFileError(f"{path}: the {what} '{stated[:40]}' is no number") from None
  if not abs(value - float(number)) <= max(digits, 0.51 * unit):
    raise FieldFileError(f"{path}: the {what} is {value:.12f}, the header says {stated}")


def plaquette(u: np.ndarray) -> float:
  """(1/Nc) Re tr P averaged over plaquettes, of links that may be anything: overflow gives NaN, not a warning."""
  with np.errstate(all="ignore"):
    return float(observables.mean_plaquette(u))


def link_trace(u: np.ndarray) -> float:
  """(1/Nc) Re tr U averaged over links."""
  return float(np.einsum("maa...->m...", u).real.mean() / u.shape[1])
