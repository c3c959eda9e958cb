"""Wilson loops: plaquette, staple, rectangle, clover leaf, Polyakov line.

The plaquette is P_{mu nu}(x) = U_mu(x) U_nu(x+mu) U_mu(x+nu)^dag U_nu(x)^dag. `plaquettes` and `link_plaquettes` serve
the hot kernels and work on flat sites; the others are for reading and for observables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from flowqcd.lattice import fusion, group, precision, sites
from flowqcd.types import Array


def planes(nd: int) -> list[tuple[int, int]]:
  """All planes (mu, nu) with mu < nu."""
  return [(mu, nu) for mu in range(nd) for nu in range(mu + 1, nd)]


@precision.compiled("mu", "nu")
def plaquette(u: Array, mu: int, nu: int) -> Array:
  """P_{mu nu}(x). u: [Nd, Nc, Nc, *L] -> [Nc, Nc, *L]."""
  lattice, v = sites.extents(u), sites.flatten(u)
  top = group.mul(v[mu], sites.shift(v[nu], lattice, mu))
  bottom = group.mul(v[nu], sites.shift(v[mu], lattice, nu))
  return sites.unflatten(group.mul(top, group.adjoint(bottom)), lattice)


@precision.compiled("mu")
def staple(u: Array, mu: int) -> Array:
  """Sum A of the 2(Nd-1) staples, such that U_mu(x) A(x) sums the plaquettes through the link. -> [Nc, Nc, *L]."""
  lattice = sites.extents(u)
  return sites.unflatten(flat_staple(sites.flatten(u), lattice, mu), lattice)


def flat_staple(v: Array, lattice: sites.Extents, mu: int) -> Array:
  """`staple` on flat links v [Nd, Nc, Nc, V] -> [Nc, Nc, V]: four products a plane."""
  mul, adj = group.mul, group.adjoint
  total = jnp.zeros_like(v[mu])
  for nu in range(len(lattice)):
    if nu == mu:
      continue
    side, top = sites.shift(v[nu], lattice, mu), sites.shift(v[mu], lattice, nu)
    above = mul(side, adj(mul(v[nu], top)))
    below = mul(adj(mul(v[mu], side)), v[nu])
    total = total + above + sites.shift(below, lattice, nu, -1)
  return total


@precision.compiled("mu", "nu")
def rectangle(u: Array, mu: int, nu: int) -> Array:
  """The 2x1 loop, two steps along mu and one along nu, starting at x. -> [Nc, Nc, *L]."""
  lattice, v = sites.extents(u), sites.flatten(u)
  double = group.mul(v[mu], sites.shift(v[mu], lattice, mu))
  top = group.mul(double, sites.shift(v[nu], lattice, mu, 2))
  bottom = group.mul(v[nu], sites.shift(double, lattice, nu))
  return sites.unflatten(group.mul(top, group.adjoint(bottom)), lattice)


@precision.compiled("mu", "nu")
def clover_leaf(u: Array, mu: int, nu: int) -> Array:
  """Sum of the four plaquettes of the (mu, nu) plane that start and end at x, counterclockwise. -> [Nc, Nc, *L].

  Luescher et al., hep-lat/9605038, eq. 2.9.
  """
  lattice, v = sites.extents(u), sites.flatten(u)
  mul, adj = group.mul, group.adjoint
  a, d = v[mu], v[nu]
  b, c = sites.shift(d, lattice, mu), sites.shift(a, lattice, nu)
  top, bottom = mul(a, b), mul(d, c)
  # The same plaquette seen from its four corners; each is then carried to the site that it starts from.
  from_x = mul(top, adj(bottom))
  from_mu = mul(mul(b, adj(bottom)), a)
  from_both = mul(adj(bottom), top)
  from_nu = mul(mul(adj(d), top), adj(c))
  back_mu = sites.shift(from_mu, lattice, mu, -1)
  back_nu = sites.shift(from_nu, lattice, nu, -1)
  back_both = sites.shift(sites.shift(from_both, lattice, mu, -1), lattice, nu, -1)
  return sites.unflatten(from_x + back_mu + back_nu + back_both, lattice)


@precision.compiled("direction")
def polyakov_line(u: Array, direction: int = 0) -> Array:
  """Ordered product of the links along a direction, from coordinate 0: [Nc, Nc, *L without that axis]."""
  sites.extents(u)
  line = jnp.moveaxis(u[direction], direction + 2, 0)
  rest = line.shape[3:]
  line = line.reshape(line.shape[:3] + (-1,))
  # Neighbours by twos: the first products are within a device's time slices.
  while len(line) > 1:
    even = len(line) // 2 * 2
    line = jnp.concatenate([group.mul(line[0:even:2], line[1:even:2]), line[even:]])
  return line[0].reshape(line.shape[1:3] + rest)


def winding_line(v: Array, lattice: sites.Extents, mu: int) -> Array:
  """The closed line along mu that starts and ends at each site: flat links v [Nd, Nc, Nc, V] -> [Nc, Nc, V]."""
  # W_{m+n}(x) = W_m(x) W_n(x+m): by the binary digits of the length, in as many products as its logarithm.
  line, length = v[mu], 1
  for digit in f"{lattice[mu]:b}"[1:]:
    line, length = group.mul(line, sites.shift(line, lattice, mu, length)), 2 * length
    if digit == "1":
      line, length = group.mul(line, sites.shift(v[mu], lattice, mu, length)), length + 1
  return line


class Sides(NamedTuple):
  """A field of links on the four sides of the plaquettes of one plane, each [Nc, Nc, V].

  a = U_mu(x), b = U_nu(x+mu), c = U_mu(x+nu), d = U_nu(x).
  """

  a: Array
  b: Array
  c: Array
  d: Array


class PlaneCorners(NamedTuple):
  """The plaquettes of one plane, and the same loops read from the corners x+mu and x+nu; each [Nc, Nc, V].

  With the sides a, b, c, d: origin = a b c^dag d^dag (at x), at_mu = b c^dag d^dag a (at x+mu),
  at_nu = c b^dag a^dag d (at x+nu).
  """

  origin: Array
  at_mu: Array
  at_nu: Array


class LinkParts(NamedTuple):
  """What one plane adds to the four links of its plaquettes, each [Nc, Nc, V]: see `gather_to_links`."""

  on_mu: Array
  on_nu: Array
  ahead_mu: Array
  ahead_nu: Array


def neighbours(v: Array, lattice: sites.Extents) -> list[Array]:
  """Links seen from one step ahead: entry nu is U_mu(x+nu) for all mu. v: flat links.

  Shifting the whole field once keeps the copies as arrays: a shift that only one product reads is fused into it by
  XLA, element by element, and costs four times the product.
  """
  return [sites.shift(v, lattice, nu) for nu in range(len(lattice))]


def sides(v: Array, lattice: sites.Extents) -> list[Sides]:
  """A field of links v [Nd, Nc, Nc, V] on the sides of all plaquettes, plane by plane."""
  ahead = neighbours(v, lattice)
  each = [Sides(v[mu], ahead[mu][nu], ahead[nu][mu], v[nu]) for mu, nu in planes(len(lattice))]
  return [fusion.materialise_cotangents(plane) for plane in each]


def at_planes(v: Array, lattice: sites.Extents) -> Sides:
  """`sides` of all planes in one: each [planes, Nc, Nc, V]."""
  return Sides(*(jnp.stack(parts) for parts in zip(*sides(v, lattice))))


def plane_corners(v: Array, lattice: sites.Extents) -> list[PlaneCorners]:
  """Plaquettes of flat links v [Nd, Nc, Nc, V] from three of their corners: seven products a plane.

  One plane after the other, so that what one product writes is in the cache when the next reads it.
  """
  return [fusion.materialise(_corners(plane)) for plane in sides(v, lattice)]


def _corners(plane: Sides) -> PlaneCorners:
  mul, adj = group.mul, group.adjoint
  a, b, c, d = plane
  top, bottom = fusion.materialise((mul(a, b), adj(mul(d, c))))
  side = mul(top, adj(c))
  return PlaneCorners(mul(top, bottom), mul(b, mul(bottom, a)), adj(mul(adj(d), side)))


def gather_to_links(lattice: sites.Extents, parts: Sequence[LinkParts]) -> Array:
  """Sum contributions of all planes onto links: the field F [Nd, Nc, Nc, V] with, for every plane (mu, nu) and site x,

  F_mu(x) += on_mu(x), F_nu(x) += on_nu(x), F_nu(x+mu) += ahead_mu(x), F_mu(x+nu) += ahead_nu(x).
  Contributions that move along one direction move together.
  """
  nd = len(lattice)
  total: list[Any] = [0] * nd
  moving: list[list[tuple[int, Array]]] = [[] for _ in range(nd)]
  for (mu, nu), part in zip(planes(nd), parts):
    total[mu] = total[mu] + part.on_mu
    total[nu] = total[nu] + part.on_nu
    moving[mu].append((nu, part.ahead_mu))
    moving[nu].append((mu, part.ahead_nu))
  for step, pairs in enumerate(moving):
    moved = sites.shift(jnp.stack([part for _, part in pairs]), lattice, step, -1)
    for i, (link, _) in enumerate(pairs):
      total[link] = total[link] + moved[i]
  return jnp.stack(total)


def link_plaquettes(v: Array, lattice: sites.Extents) -> Array:
  """M_mu(x) = U_mu(x) * staples: the sum of the 2(Nd-1) plaquettes that start along each link. Flat, like v."""
  return sum_at_links(plane_corners(v, lattice), lattice)


def sum_at_links(corners: Sequence[PlaneCorners], lattice: sites.Extents) -> Array:
  """The sums M of `link_plaquettes` from corners already computed."""
  parts = [LinkParts(p.origin, group.adjoint(p.origin), p.at_mu, p.at_nu) for p in corners]
  return gather_to_links(lattice, parts)


@precision.compiled()
def plaquette_traces(u: Array) -> Array:
  """tr P for every plane and site. u: [Nd, Nc, Nc, *L] -> complex [planes, *L]."""
  lattice = sites.extents(u)
  a, b, c, d = at_planes(sites.flatten(u), lattice)
  # tr A B^dag needs no third product.
  top, bottom = fusion.materialise((group.mul(a, b), group.mul(d, c)))
  return sites.unflatten(jnp.sum(top * bottom.conj(), axis=(1, 2)), lattice)
