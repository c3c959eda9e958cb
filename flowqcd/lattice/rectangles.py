"""Rectangles of two links by one: all their traces, and their sums at links for forces.

A path *beside* a link U_mu(x) has three links and its ends. In the direction nu it is
above(x) = U_nu(x) U_mu(x+nu) U_nu(x+mu)^dag, or below(x) = U_nu(x-nu)^dag U_mu(x-nu) U_nu(x-nu+mu): with the link, a
plaquette. A rectangle is a plaquette in which one of the three other links has become a path beside it.
On an extent of two or one, rectangles run over links twice; all formulas here hold there too.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from flowqcd.lattice import fusion, group, loops, precision, sites
from flowqcd.types import Array


@precision.compiled()
def traces(u: Array) -> Array:
  """tr R of all rectangles, two steps along mu and one along nu, for every ordered pair: complex [Nd(Nd-1), *L].

  u: [Nd, Nc, Nc, *L]. Pairs are (0, 1), (0, 2), .., (1, 0), ..; the loop is that of `loops.rectangle`.
  """
  lattice, v = sites.extents(u), sites.flatten(u)
  found = []
  for mu in range(len(lattice)):
    double = fusion.materialise(group.mul(v[mu], sites.shift(v[mu], lattice, mu)))
    for nu in range(len(lattice)):
      if nu != mu:
        ends = sites.shift(v[nu], lattice, mu, 2), sites.shift(double, lattice, nu)
        top, bottom = fusion.materialise((group.mul(double, ends[0]), group.mul(v[nu], ends[1])))
        found.append(jnp.sum(top * bottom.conj(), axis=(0, 1)))
  return sites.unflatten(jnp.stack(found), lattice)


class _Beside(NamedTuple):
  """What the direction nu adds beside U_mu(x), each [Nc, Nc, V].

  The sides of the plaquette (mu, nu) at x: near = U_mu(x), far = U_mu(x+nu), left = U_nu(x), right = U_nu(x+mu). Halves of
  paths: up = left far, down = left^dag near. above, below: paths beside the link U_mu(x), as the module has them.
  """

  near: Array
  far: Array
  left: Array
  right: Array
  up: Array
  down: Array
  above: Array
  below: Array


def link_loops(v: Array, lattice: sites.Extents, plaquettes: float | Array, rectangles: float | Array) -> Array:
  """Sum of all plaquettes and rectangles that start along each link, times these numbers: flat v [Nd, Nc, Nc, V] -> same.

  2(Nd-1) plaquettes and 6(Nd-1) rectangles a link, in 24 products a plane.
  """
  ahead, paths = loops.neighbours(v, lattice), [jnp.zeros_like(link) for link in v]
  for mu, nu in loops.planes(len(lattice)):
    one = _beside(v[mu], ahead[nu][mu], v[nu], ahead[mu][nu], lattice, nu)
    other = _beside(v[nu], ahead[mu][nu], v[mu], ahead[nu][mu], lattice, mu)
    one, other = fusion.materialise((one, other))
    added = fusion.materialise((
      _paths(one, other, lattice, mu, nu, plaquettes, rectangles),
      _paths(other, one, lattice, nu, mu, plaquettes, rectangles),
    ))  # fmt: skip
    paths[mu], paths[nu] = paths[mu] + added[0], paths[nu] + added[1]
  return group.mul(v, group.adjoint(jnp.stack(paths)))


def _beside(near: Array, far: Array, left: Array, right: Array, lattice: sites.Extents, nu: int) -> _Beside:
  up, down = fusion.materialise((group.mul(left, far), group.mul(group.adjoint(left), near)))
  above, below = fusion.materialise((group.mul(up, group.adjoint(right)), group.mul(down, right)))
  return _Beside(near, far, left, right, up, down, above, sites.shift(below, lattice, nu, -1))


def _paths(
  link: _Beside,
  side: _Beside,
  lattice: sites.Extents,
  mu: int,
  nu: int,
  plaquettes: float | Array,
  rectangles: float | Array,
) -> Array:
  """Paths from x to x+mu in the plane (mu, nu) which close plaquettes and rectangles with U_mu(x), times their numbers.

  link: what nu adds beside links of direction mu; side: what mu adds beside those of nu.
  """
  mul, adj, r = group.mul, group.adjoint, rectangles
  outside_right, outside_left = sites.shift(side.above, lattice, mu), side.below
  over = plaquettes * link.far + r * sites.shift(link.above, lattice, nu)
  # The same seen from x - nu.
  under = plaquettes * link.near + r * link.below
  over, under, outside_right = fusion.materialise((over, under, outside_right))
  over = mul(link.left, over) + r * mul(outside_left, link.far)
  under = mul(adj(link.left), under) + r * mul(adj(outside_left), link.near)
  # Fused into the next products they would be computed three times.
  over, under = fusion.materialise((over, under))
  above = mul(over, adj(link.right)) + r * mul(link.up, adj(outside_right))
  below = mul(under, link.right) + r * mul(link.down, outside_right)
  above, below = fusion.materialise((above, below))
  return above + sites.shift(below, lattice, nu, -1)
