"""The layout of links, [Nd, Nc, Nc, *L], and the errors for arrays that have another."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowqcd.types import AnyArray

Extents = tuple[int, ...]

_NOT_UNITARY = 1e-2
"""Of |U U^dag - 1|: far above rounding in single precision, far below what other elements put together have."""


class ShapeError(ValueError):
  """An array does not have the shape that its role needs."""


def extents(u: AnyArray) -> Extents:
  """Lattice extents L of links u [Nd, Nc, Nc, *L].

  Raises ShapeError unless there are as many extents as directions and the colour matrices are square, and for links with
  their sites first; TypeError for real numbers.
  """
  shape = tuple(u.shape)
  if len(shape) < 4 or shape[1] != shape[2] or len(shape) - 3 != shape[0]:
    hint = f"; {_REMEDY}" if _may_have_sites_first(shape) else ""
    raise ShapeError(f"links must have the shape [Nd, Nc, Nc, *L] with Nd extents in L, not {shape}{hint}")
  if not jnp.issubdtype(u.dtype, jnp.complexfloating):
    raise TypeError(f"links are complex matrices, not {u.dtype}: those of U(1) are e^(i theta), with Nc = 1")
  refuse_sites_first(u)
  return shape[3:]


def check(u: AnyArray, nc: int, lattice: Extents) -> None:
  """Raise ShapeError unless u are links of this group on this lattice."""
  if extents(u) != tuple(lattice) or u.shape[1] != nc:
    raise ShapeError(f"this flow is for Nc = {nc} on the lattice {tuple(lattice)}, not for links {u.shape}")


_REMEDY = "links with their sites first, [*L, Nd, Nc, Nc], go through sites.from_sites_first"


def refuse_sites_first(u: Any) -> None:
  """Raise ShapeError for links [*L, Nd, Nc, Nc] whose shape could be ours, as SU(3) on 4^4 has it: by one matrix of them.

  Looks at nothing but the shape where the array is traced or the shape is clear.
  """
  if isinstance(u, Tracer) or not _may_have_sites_first(u.shape):
    return
  theirs, ours = (u[(0,) * (u.ndim - 2)], u[(0, slice(None), slice(None)) + (0,) * (u.ndim - 3)])
  if _is_unitary(theirs) and not _is_unitary(ours):
    raise ShapeError(
      f"these links {tuple(u.shape)} have no unitary matrices on axes 1 and 2, but on the last: {_REMEDY}"
    )


def _may_have_sites_first(shape: tuple[int, ...]) -> bool:
  return len(shape) > 3 and shape[-1] == shape[-2] <= 3 and shape[-3] == len(shape) - 3


def _is_unitary(x: AnyArray) -> bool:
  x = np.asarray(x)
  return x.shape[0] == x.shape[1] and bool(np.abs(x @ x.conj().T - np.eye(len(x))).max() < _NOT_UNITARY)
