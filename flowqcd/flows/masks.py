"""Which links a coupling layer updates, and which plaquettes it may look at meanwhile.

arXiv:2208.03832, sec. 3.1: links of direction o_0 are active where sum_i shifts_i x_{o_i} = active_phase (mod width). A
plaquette in the plane (o_0, nu) holds two such links, at x and x + nu; with shifts of nu that are no multiple of the width
at most one of them is active, so that every active link has a plaquette of its own and staples that are frozen.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from flowqcd.lattice import loops
from flowqcd.lattice.sites import Extents
from flowqcd.types import AnyArray


class MaskError(ValueError):
  """Extents, width and shifts that make no mask."""


@dataclasses.dataclass(frozen=True)
class Config:
  """One layer's mask. orientations: o_0, o_1, ..., each direction once; o_0 is the direction of the active links, and the
  active plaquette lies in the plane (o_0, o_1). shifts: one per orientation. active_phase: from 0 to width - 1.
  """

  orientations: tuple[int, ...]
  shifts: tuple[int, ...]
  width: int
  active_phase: int


class Masks(NamedTuple):
  """Arrays of one layer, so that layers with different masks run as one scan.

  active: bool [Nd, *L], links updated. frozen: bool [planes, *L], plaquettes without an active link (planes as in
  loops.planes). sites: int [V/width], flat positions of the active links, all of direction `direction`. plane, flipped: the
  active plaquettes are entry `plane` of the plaquettes, daggered where flipped, so that they start with the link.
  """

  active: AnyArray
  frozen: AnyArray
  sites: AnyArray
  direction: AnyArray
  plane: AnyArray
  flipped: AnyArray


def default_shifts(nd: int, width: int = 4) -> tuple[int, ...]:
  """The paper's (1, 2, 1, 1), cut to the dimension; all 1 in two dimensions and for width 2, a checkerboard."""
  return (1, 1 if width == 2 or nd == 2 else 2, 1, 1)[:nd]


def sweep(nd: int, width: int = 4, shifts: tuple[int, ...] | None = None, turn: int = 1) -> list[Config]:
  """Masks that update every link once: nd * width layers, the direction o_0 fastest, then the phase.

  Active plaquettes lie in the planes (o_0, o_0 + turn mod nd); the other directions follow in cyclic order. Phases fall:
  0, width - 1, ..., 1. Where o_1 has the shift 1, as in two dimensions, the passive plaquette behind a link then becomes
  active next, and what a layer made of the active one is not undone until the sweep is over. With the shift 2, two phases
  undo each other: SU(2) on 8^2 at beta = 2.2 has a loss higher by 0.6. Raises MaskError unless 0 < turn < nd.
  """
  if not 0 < turn < nd:
    raise MaskError(f"turn must be from 1 to {nd - 1}, not {turn}")
  shifts = default_shifts(nd, width) if shifts is None else shifts
  rotated = [(first, (first + turn) % nd) for first in range(nd)]
  full = [pair + tuple((pair[0] + i) % nd for i in range(1, nd) if i != turn) for pair in rotated]
  return [Config(o, shifts, width, phase) for phase in (-p % width for p in range(width)) for o in full]


def layers(count: int, nd: int, width: int = 4) -> list[Config]:
  """The masks of a flow of `count` layers: sweeps with turn 1, 2, ..., nd - 1, and from the start again.

  A class function of P = U A moves U only along P: a plaquette whose plane is never the active one gets no weight at
  first order in the coupling. Each of the nd - 1 sweeps gives another plane to every link, so that nd (nd - 1) width
  layers, 48 in four dimensions, reach every plaquette from two of its links. (The paper has 48 layers and varies the
  parameters across them, without giving the order.)
  """
  each = [config for turn in range(1, nd) for config in sweep(nd, width, turn=turn)]
  return [each[i % len(each)] for i in range(count)]


def make(config: Config, lattice: Extents) -> Masks:
  """Masks of a layer on a lattice. Raises MaskError, naming the number at fault, where they do not fit together."""
  _check(config, lattice)
  nd, mu, nu = len(lattice), config.orientations[0], config.orientations[1]
  x = np.indices(lattice)
  total = sum(s * x[o] for s, o in zip(config.shifts, config.orientations))
  chosen = total % config.width == config.active_phase
  active = np.zeros((nd, *lattice), bool)
  active[mu] = chosen
  planes = loops.planes(nd)
  # A plaquette (a, b) at x holds the links a at x and x+b, b at x and x+a.
  touched = [active[a] | np.roll(active[a], -1, b) | active[b] | np.roll(active[b], -1, a) for a, b in planes]
  return Masks(
    active,
    ~np.stack(touched),
    np.flatnonzero(chosen),
    np.asarray(mu),
    np.asarray(planes.index((min(mu, nu), max(mu, nu)))),
    np.asarray(mu > nu),
  )


def stack(configs: list[Config], lattice: Extents) -> Masks:
  """Masks of many layers with a leading axis of layers, for a scan."""
  each = [make(config, lattice) for config in configs]
  return Masks(*(np.stack(parts) for parts in zip(*each)))


def _check(config: Config, lattice: Extents) -> None:
  nd, width = len(lattice), config.width
  if sorted(config.orientations) != list(range(nd)) or len(config.shifts) != nd:
    raise MaskError(
      f"a mask in {nd} dimensions needs each direction once and one shift for each, not orientations "
      f"{config.orientations} with shifts {config.shifts}"
    )
  if width < 2 or not 0 <= config.active_phase < width:
    raise MaskError(f"width must be at least 2 and active_phase below it, not {width} and {config.active_phase}")
  if config.shifts[0] % width != 1 and np.gcd(config.shifts[0], width) != 1:
    raise MaskError(f"the first shift must have no factor in common with the width {width}, not {config.shifts[0]}")
  for o, s in zip(config.orientations, config.shifts):
    if s * lattice[o] % width:
      raise MaskError(
        f"extent {lattice[o]} of direction {o} does not fit width {width} and shift {s}: "
        f"the pattern would not close over the boundary"
      )
    if o != config.orientations[0] and s % width == 0:
      raise MaskError(
        f"shift {s} of direction {o} is a multiple of the width {width}: plaquettes would hold two active links"
      )
