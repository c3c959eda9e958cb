"""Wilson loops of any shape as terms of an action, for flows: values, gradient and exact Laplacian.

A shape is a closed path in letters, a, b, c, .. a step ahead along different directions and A, B, C, .. a step back:
abAB is the plaquette, aabAAB the rectangle, abAcBC the chair, abcABC the third loop of six links. It stands for all
its orientations and positions: W = sum of 2 Re tr(links along the path), a path and its reverse once.

No link may be passed twice. Then each of the l links gives C_F and W is an eigenfunction, -d^a d^a W = l C_F W: a flow
along d^a W has an exact divergence whatever the shape. `loop_action` covers pairs of plaquettes that meet on a link, among
them W1, which is the sum of all rectangles and chairs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.flows import loop_action
from flowqcd.lattice import fusion, group, linear, sites
from flowqcd.types import AnyArray, Array

Path = tuple[int, ...]
"""Steps: +(mu + 1) ahead along direction mu, -(mu + 1) back."""


def orbit(shape: str, nd: int) -> list[Path]:
  """All orientations of a shape in nd directions, each closed path once whatever its start and sense.

  Raises ValueError for text that is no closed path, passes a link twice, or needs more directions.
  """
  letters = sorted(set(shape.lower()))
  if not shape.isalpha() or not shape.isascii() or letters != [chr(ord("a") + i) for i in range(len(letters))]:
    raise ValueError(f"a loop is a word in a, b, .. and A, B, .. without gaps, like abAB, not '{shape}'")
  if len(letters) > nd:
    raise ValueError(f"the loop {shape} needs {len(letters)} directions, the lattice has {nd}")
  if any(shape.count(letter) != shape.count(letter.upper()) for letter in letters):
    raise ValueError(f"the loop {shape} is not closed")
  word = [(letters.index(x.lower()), 1 if x.islower() else -1) for x in shape]
  found = set()
  for directions in itertools.permutations(range(nd), len(letters)):
    for signs in itertools.product((1, -1), repeat=len(letters)):
      found.add(_canonical(tuple(sign * signs[i] * (directions[i] + 1) for i, sign in word)))
  links = _links(min(found), nd)
  if len({link[:2] for link in links}) < len(links):
    raise ValueError(f"the loop {shape} passes a link twice, so that its Laplacian is not a multiple of it")
  return sorted(found)


def _canonical(path: Path) -> Path:
  """The smallest of all rotations of a path and of its reverse."""
  back = tuple(-step for step in reversed(path))
  return min(p[i:] + p[:i] for p in (path, back) for i in range(len(p)))


def _links(path: Path, nd: int) -> list[tuple[int, tuple[int, ...], bool]]:
  """(direction, where the link starts, whether it is passed backwards) along a path from the origin."""
  at, found = np.zeros(nd, int), []
  for step in path:
    mu, unit = abs(step) - 1, np.eye(nd, dtype=int)[abs(step) - 1]
    found.append((mu, tuple(at.tolist() if step > 0 else (at - unit).tolist()), step < 0))
    at = at + np.sign(step) * unit
  return found


class Table(NamedTuple):
  """Where the links of a shape's n orientations lie: all as seen from `evaluate_shapes`.

  index [n, l, V]: which of the Nd V links is a path's k-th when it starts at a site. position [n, l, V]: the site from
  which the path's k-th link is the one at a site. direction, backwards [n, l].
  """

  index: AnyArray
  position: AnyArray
  direction: AnyArray
  backwards: AnyArray


def check(shapes: tuple[str, ...], lattice: sites.Extents, beside_pairs: bool = True) -> None:
  """Raise ValueError as `orbit` does, for a shape wider than the lattice, or one that the others make up.

  beside_pairs: with the plaquette there are the pairs of `loop_action`, of which W1 is all rectangles and chairs.
  """
  nd = len(lattice)
  if not isinstance(shapes, tuple):
    raise ValueError(f"loops are a tuple of words, not {shapes!r}")
  orbits = [orbit(shape, nd) for shape in shapes]
  for shape, paths in zip(shapes, orbits):
    if [*orbits, orbit("abAB", nd)].count(paths) > 1:
      raise ValueError(f"the loop {shape} is among the others already")
    _check_width(shape, paths, lattice)
  pairs = ("aabAAB", "abAcBC")[: nd - 1]
  if beside_pairs and all(orbit(shape, nd) in orbits for shape in pairs):
    raise ValueError(f"the loops {' and '.join(pairs)} make up W1 of the next order, which is there; leave one out")


def _check_width(shape: str, paths: list[Path], lattice: sites.Extents) -> None:
  nd = len(lattice)
  for path in paths:
    width = np.ptp(np.array([at for _, at, _ in _links(path, nd)] + [(0,) * nd]), axis=0) + 1
    if any(w > extent for w, extent in zip(width, lattice)):
      raise ValueError(f"the loop {shape} is wider than the lattice {lattice} and may meet itself")


@functools.lru_cache(maxsize=64)
def _table(shape: str, lattice: sites.Extents) -> Table:
  paths, nd, volume = orbit(shape, len(lattice)), len(lattice), int(np.prod(lattice))
  # On a torus a loop that meets itself is no eigenfunction: whoever asks, the Laplacian would be wrong.
  _check_width(shape, paths, lattice)
  number = np.arange(volume, dtype=np.int32).reshape(lattice)
  links = [_links(path, nd) for path in paths]
  shifted = lambda offset: np.roll(number, offset, axis=tuple(range(nd))).ravel()
  index = [[mu * volume + shifted([-x for x in at]) for mu, at, _ in path] for path in links]
  position = [[shifted(at) for _, at, _ in path] for path in links]
  direction, backwards = (np.array([[link[k] for link in path] for path in links]) for k in (0, 2))
  return Table(np.array(index, np.int32), np.array(position, np.int32), direction.astype(np.int32), backwards)


def count(shape: str, nd: int) -> int:
  """Loops of this shape for each site."""
  return len(orbit(shape, nd))


def natural_scale(shapes: tuple[str, ...], nc: int, nd: int) -> np.ndarray:
  """As `loop_action.natural_scale`, for these shapes: 1/(l C_F sqrt(2 n)), n the loops on extents of 4."""
  number = np.array([count(shape, nd) * 4.0**nd for shape in shapes])
  return 1 / (np.array([len(shape) for shape in shapes]) * group.casimir(nc) * np.sqrt(2 * number))


def values(v: Array, shapes: tuple[str, ...], lattice: sites.Extents) -> Array:
  """W of each shape at flat links v [Nd, Nc, Nc, V]: [shapes]. Raises ValueError as `orbit`, and for too wide a shape."""
  return jnp.stack([_value(v, _table(shape, tuple(lattice))) for shape in shapes])


def evaluate_shapes(v: Array, shapes: tuple[str, ...], lattice: sites.Extents, c: Array) -> loop_action.LoopAction:
  """S~ = sum_k c_k W_k: W [shapes], T^a d^a S~ and -d^a d^a S~ at flat links v [Nd, Nc, Nc, V]; c [shapes], real.

  Raises ValueError as `values`.
  """
  w, pull_back = jax.vjp(lambda v: values(v, shapes, lattice), v)
  (g,) = pull_back(c.astype(w.dtype))
  # As in group.lie_derivative: JAX returns the conjugate of df/dRe + i df/dIm.
  gradient = -0.5 * group.project(group.mul(v, jnp.swapaxes(g, -3, -2)))
  lengths = jnp.asarray([len(shape) for shape in shapes], w.dtype)
  return loop_action.LoopAction(w, fusion.materialise(gradient), group.casimir(v.shape[1]) * jnp.dot(c * lengths, w))


Evaluate = Callable[..., loop_action.LoopAction]
"""(flat links, lattice, coefficients, directions of lines) -> LoopAction."""


def extend(evaluate: Evaluate, shapes: tuple[str, ...]) -> Evaluate:
  """`loop_action.evaluate` or its like with these shapes after its own loops: W and c are [8 + Nd + shapes]."""
  if not shapes:
    return evaluate

  def both(v: Array, lattice: sites.Extents, c: Array, lines: tuple[int, ...] = ()) -> loop_action.LoopAction:
    own = evaluate(v, lattice, c[: -len(shapes)], lines)
    more = evaluate_shapes(v, shapes, lattice, c[-len(shapes) :])
    w = jnp.concatenate([own.loops, more.loops])
    return loop_action.LoopAction(w, own.gradient + more.gradient, own.laplacian + more.laplacian)

  return both


def _value(v: Array, table: Table) -> Array:
  """2 Re tr summed over all paths of one shape. One orientation after the other, so that products stay in the cache."""
  rows = jax.tree.map(jnp.asarray, table)
  # Computed again on the way back: what would be stored for all orientations is far larger than a cache.
  step = jax.checkpoint(lambda total, row: (total + _orientation(v, row), None))
  total, _ = lax.scan(step, jnp.zeros((), v.real.dtype), rows)
  return total


def _orientation(v: Array, row: Table) -> Array:
  """2 Re tr of one path from every site, as a product of two halves; row: a Table without its first axis."""
  steps = []
  for index, position, direction, backwards in zip(*row):
    links = _take(v, index, position, direction)
    steps.append(jnp.where(backwards, group.adjoint(links), links))
  steps = fusion.materialise(steps)
  half = len(steps) // 2
  product = lambda factors: functools.reduce(lambda x, y: fusion.materialise(group.mul(x, y)), factors)
  return 2 * jnp.sum(product(steps[:half]) * jnp.swapaxes(product(steps[half:]), -3, -2)).real


def _take(v: Array, index: Array, position: Array, direction: Array) -> Array:
  """One step's links [Nc, Nc, V]. Its derivative gathers too: XLA scatters one element after the other on CPUs."""
  nd, nc, _, volume = v.shape

  def take(where: tuple[Array, ...], x: tuple[Array, ...]) -> tuple[Array]:
    return (jnp.moveaxis(x[0], 0, -2).reshape(nc, nc, nd * volume)[..., where[0]],)

  def put(where: tuple[Array, ...], y: tuple[Array, ...]) -> tuple[Array]:
    # Links [Nd, Nc, Nc, V] that are zero but in the step's direction.
    own = jnp.arange(nd) == where[2]
    return (jnp.where(own[:, None, None, None], y[0][..., where[1]], 0),)

  return linear.call(take, put, (index, position, direction), (v,))[0]
