r"""A conditional flow that starts from the hopping expansion: block LU factors of the Schur complement.

Even/odd preconditioning is exact as two couplings, D = L diag(1, M) R with unit triangular L and R (see `full`). What is
left on odd sites is M = 1 - kappa^2 N, N = H_oe H_eo, which is sparse: sites two hops apart get different colours, and then
N = N_l + N_u with triangular parts (larger colours on smaller ones, and the reverse). With T = N_l N_u,

  1 - kappa^2 N = (1 - kappa^2 N_l)(1 - kappa^2 T'_l)(1 - kappa^2 T'_u)(1 - kappa^2 N_u) + ...,   T' = kappa^2 T.

The outer factors alone are right to order kappa^2 (`order` 1); with the inner ones all is right to order kappa^4 but for
T between sites of one colour (`order` 2). Every factor has determinant one. Coefficients of hops are parameters: one for
each pair of directions, each time N_l or N_u occurs, all one at the start.

For a twisted mass, W = M + i mu gamma5 = G (1 - kappa^2 G^{-1} N) with the local G = 1 + i mu gamma5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.lattice import checkerboard, colouring, sites
from flowqcd.theory import dirac
from flowqcd.types import Array, Boundary, ConditionalFlow, LinearFlow, Params


@dataclasses.dataclass(frozen=True)
class Config:
  """Hopping orders that are right from the start."""

  order: int = dataclasses.field(
    default=1, metadata={"doc": "Orders of kappa^2 past even/odd at the start: 0, 1 or 2."}
  )

  def __post_init__(self) -> None:
    """Raise ValueError for an order that is not there."""
    if self.order not in (0, 1, 2):
      raise ValueError(f"order must be 0, 1 or 2, not {self.order}")


class _Geometry(NamedTuple):
  """lattice; colours [V/2] of odd slots; pairs bool [2, 2 Nd, 2 Nd, V/2] (lower, upper): whether the hop z -> y -> x from
  the odd z = y + d' to the odd x = y + d is of that triangle, by (d, d', y); count of colours.
  """

  lattice: sites.Extents
  colours: np.ndarray
  pairs: np.ndarray
  count: int


def odd(
  config: Config, kappa: float, lattice: sites.Extents, boundary: Boundary | None = None, twist: float = 0.0
) -> ConditionalFlow:
  """Approximates M + i twist gamma5 on odd sites, fields [Ns, Nc, V/2].

  Raises ParityError for odd extents, ShapeError for links of another lattice, ValueError for another number of phases.
  """
  geometry, boundary = _geometry(tuple(lattice)), dirac.check_boundary(boundary, len(lattice))
  directions = 2 * len(lattice)
  transformed = hk.without_apply_rng(hk.transform(lambda: _coefficients(config, directions)))

  def at(params: Params, u: Array) -> LinearFlow:
    if sites.extents(u) != geometry.lattice:
      raise sites.ShapeError(f"this flow is for the lattice {geometry.lattice}, not for links {u.shape}")
    factors = _factors(geometry, kappa, u, boundary, twist, transformed.apply(params))
    diagonal = lambda x, sign: x + sign * 1j * twist * dirac.gamma5(x) if twist else x

    def forward(z: Array) -> Array:
      for factor in factors:
        z = z + factor(z)
      return diagonal(z, 1)

    def inverse(phi: Array) -> Array:
      phi = diagonal(phi, -1) / (1 + twist**2)
      for factor in reversed(factors):
        phi = _substitute(factor, phi, geometry.count)
      return phi

    components = u.shape[1] * 2 ** (len(lattice) // 2) * len(geometry.colours)
    return LinearFlow(forward, inverse, jnp.asarray(components * np.log1p(twist**2), u.real.dtype))

  return ConditionalFlow(lambda key: transformed.init(key), at)


def full(inner: ConditionalFlow, kappa: float, boundary: Boundary | None = None) -> ConditionalFlow:
  """L diag(1, A) R on the whole lattice, fields [Ns, Nc, V], from a flow A on odd sites: D itself where A = M.

  R = [[1, -kappa H_eo], [0, 1]] and L = [[1, 0], [-kappa H_oe, 1]] are parity couplings.
  """

  def at(params: Params, u: Array) -> LinearFlow:
    lattice, (to_even, to_odd) = sites.extents(u), dirac.parity_blocks(u, boundary)
    middle = inner.at(params, u)

    def forward(z: Array) -> Array:
      even, odd_part = checkerboard.split(z, lattice)
      even = even - kappa * to_even.apply(odd_part)
      return checkerboard.merge(even, middle.forward(odd_part) - kappa * to_odd.apply(even), lattice)

    def inverse(phi: Array) -> Array:
      even, odd_part = checkerboard.split(phi, lattice)
      odd_part = middle.inverse(odd_part + kappa * to_odd.apply(even))
      return checkerboard.merge(even + kappa * to_even.apply(odd_part), odd_part, lattice)

    return LinearFlow(forward, inverse, middle.logdet)

  return ConditionalFlow(inner.init, at)


def _coefficients(config: Config, directions: int) -> list[Array]:
  """One [2 Nd, 2 Nd] for every N_l or N_u in the factors, in the order upper; T of the upper; T of the lower; lower."""
  count = {0: 0, 1: 2, 2: 6}[config.order]
  ones = hk.initializers.Constant(1.0)
  return [hk.get_parameter(f"hops{i}", (directions, directions), jnp.result_type(float), ones) for i in range(count)]


def _geometry(lattice: sites.Extents) -> _Geometry:
  colours = colouring.two_hop(lattice)
  around = colours[colouring.odd_neighbours(lattice)]
  lower = around[:, None] > around[None]
  return _Geometry(lattice, colours, np.stack([lower, lower.swapaxes(0, 1)]), int(colours.max()) + 1)


def _factors(
  geometry: _Geometry, kappa: float, u: Array, boundary: Boundary | None, twist: float, coefficients: list[Array]
) -> list[Callable[[Array], Array]]:
  """Strictly triangular X of the factors 1 + X, the first to act first."""
  star = _star(geometry, u, boundary)
  untwist = lambda x: (x - 1j * twist * dirac.gamma5(x)) / (1 + twist**2) if twist else x
  weights = [c.astype(u.real.dtype)[..., None] for c in coefficients]

  def part(i: int, triangle: int) -> Callable[[Array], Array]:
    return lambda x: kappa**2 * untwist(star(weights[i] * geometry.pairs[triangle], x))

  def two(i: int, triangle: int) -> Callable[[Array], Array]:
    lower, upper = part(i, 0), part(i + 1, 1)

    def apply(x: Array) -> Array:
      def colour(total: Array, c: Array) -> tuple[Array, None]:
        read = geometry.colours > c if triangle else geometry.colours < c
        return jnp.where(geometry.colours == c, -lower(upper(jnp.where(read, x, 0))), total), None

      return lax.scan(colour, jnp.zeros_like(x), jnp.arange(geometry.count))[0]

    return apply

  if not coefficients:
    return []
  negative = lambda f: lambda x: -f(x)
  inner = [two(1, 1), two(3, 0)] if len(coefficients) > 2 else []
  return [negative(part(0, 1)), *inner, negative(part(len(coefficients) - 1, 0))]


def _star(geometry: _Geometry, u: Array, boundary: Boundary | None) -> Callable[[Array, Array], Array]:
  """(weights [2 Nd, 2 Nd, V/2], psi on odd sites) -> sum over two hops z -> y -> x of weight (d, d', y) times the hops.

  Weights of one give H_oe H_eo. What arrives at an even site from each neighbour is kept apart, weighted for each direction
  in which it may leave, and hops on.
  """
  lattice = geometry.lattice
  to_even, to_odd = checkerboard.split(dirac.hopping_links(u, boundary), lattice)
  shift_to = lambda parity: lambda x, mu, sign: checkerboard.shift(x, lattice, mu, sign, parity)
  opposite = np.arange(2 * len(lattice)).reshape(-1, 2)[:, ::-1].ravel()

  def apply(weights: Array, psi: Array) -> Array:
    arrived = dirac.reconstruct_each(dirac.transport(to_even, dirac.project(psi), shift_to(0)))
    # Hop e at the target x comes from y = x + e, which sees x in the opposite direction.
    leaving = jnp.einsum("dev,esiv->dsiv", weights[opposite], arrived)
    return dirac.reconstruct(dirac.transport(to_odd, dirac.project_each(leaving), shift_to(1)))

  return apply


def _substitute(factor: Callable[[Array], Array], phi: Array, count: int) -> Array:
  """x with x + X x = phi for X strictly triangular in `count` colours: each pass makes one more colour exact."""
  return lax.fori_loop(0, count - 1, lambda _, x: phi - factor(x), phi)
