"""Sweeps over all links with their staples, for actions that are linear in every link, such as Wilson's.

Links of one direction and one parity share no plaquette, so that given all others they are independent: they are updated
together, each by a step that leaves its own e^{(beta/Nc) Re tr U A} invariant. Even and odd sites are two arrays of half
the volume, so that nothing is computed for links that stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd import domains
from flowqcd.lattice import checkerboard, fusion, group, sites
from flowqcd.types import Array, Key

Update = Callable[[Key, Array, Array], tuple[Array, Any]]
"""(key, links U [Nc, Nc, V/2], sums A of their staples) -> new links, and what happened."""


class Swept(NamedTuple):
  """Links as `split` gives them, and what the updates reported, with a leading axis [2 Nd]."""

  halves: Array
  info: Any


def split(u: Array) -> Array:
  """Links [Nd, Nc, Nc, *L] -> [2, Nd, Nc, Nc, V/2], even sites and odd ones. Raises ParityError for odd extents."""
  return jnp.stack(checkerboard.split(sites.flatten(u), sites.extents(u)))


def merge(halves: Array, lattice: sites.Extents) -> Array:
  """Inverse of split."""
  return sites.unflatten(checkerboard.merge(halves[0], halves[1], lattice), lattice)


def sweep(key: Key, halves: Array, lattice: sites.Extents, update: Update) -> Swept:
  """Update every link once: direction by direction, even sites and then odd ones. One program for all of them."""
  nd = len(lattice)
  every = [lambda h, mu=mu, p=p: staple(h, lattice, mu, p) for mu in range(nd) for p in (0, 1)]
  chosen = lambda h, i: lax.switch(i, every, h)
  # At a switch an accelerator waits for the host. A CPU does not, and has no tables to read; neither was timed on a GPU.
  gathered = lambda h, i: gathered_staple(h, lattice, i // 2, i % 2)

  def some_links(halves: Array, inputs: tuple[Array, Key]) -> tuple[Array, Any]:
    i, key = inputs
    mu, parity = i // 2, i % 2
    # Tables would gather a split lattice, whose shifts move one slice.
    split = domains.count() > 1
    sums = chosen(halves, i) if split else lax.platform_dependent(halves, i, cpu=chosen, default=gathered)
    new, info = update(key, halves[parity, mu], sums)
    return halves.at[parity, mu].set(new), info

  return Swept(*lax.scan(some_links, halves, (jnp.arange(2 * nd), jax.random.split(key, 2 * nd))))


def staple(halves: Array, lattice: sites.Extents, mu: int, parity: int) -> Array:
  """Sum A of the 2(Nd-1) staples of the links in direction mu from sites of this parity: [Nc, Nc, V/2].

  As loops.flat_staple, whose halves these are.
  """
  mul, adj, other = group.mul, group.adjoint, 1 - parity
  here, there = halves[parity], halves[other]
  axes = [nu for nu in range(len(lattice)) if nu != mu]
  # Copies: shifts that are read by a product only would be fused into it, element by element.
  sides, tops, lower_sides = fusion.materialise(
    (
      jnp.stack([checkerboard.shift(there[nu], lattice, mu, 1, parity) for nu in axes]),
      jnp.stack([checkerboard.shift(there[mu], lattice, nu, 1, parity) for nu in axes]),
      # The staples below start at x - nu, of the other parity.
      jnp.stack([checkerboard.shift(here[nu], lattice, mu, 1, other) for nu in axes]),
    )
  )
  near, far = jnp.stack([here[nu] for nu in axes]), jnp.stack([there[nu] for nu in axes])
  inner = fusion.materialise((mul(near, tops), mul(there[mu], lower_sides)))
  above, below = fusion.materialise((mul(sides, adj(inner[0])), mul(adj(inner[1]), far)))
  return jnp.sum(above, axis=0) + sum(
    checkerboard.shift(below[i], lattice, nu, -1, parity) for i, nu in enumerate(axes)
  )


def gathered_staple(halves: Array, lattice: sites.Extents, mu: Array, parity: Array) -> Array:
  """The same with a direction and a parity that are data, by tables of neighbours: one program for all links."""
  mul, adj, other = group.mul, group.adjoint, 1 - parity
  directions = range(len(lattice))
  table = lambda steps: jnp.asarray(
    [[checkerboard.neighbours(lattice, nu, steps, p) for nu in directions] for p in (0, 1)]
  )
  ahead, behind = table(1), table(-1)  # [2, Nd, V/2]
  axes = jnp.asarray([[nu for nu in directions if nu != skipped] for skipped in directions])[mu]
  here, there = halves[parity], halves[other]
  at = lambda links, index: jnp.take(links, index, axis=-1)
  each = lambda links, index: jnp.take_along_axis(links, jnp.broadcast_to(index[:, None, None], links.shape), axis=-1)
  tops = jnp.stack([at(there[mu], index) for index in ahead[parity, axes]])
  above = mul(at(there[axes], ahead[parity, mu]), adj(mul(here[axes], tops)))
  lower_sides = at(here[axes], ahead[other, mu])
  below = mul(adj(mul(jnp.broadcast_to(there[mu], lower_sides.shape), lower_sides)), there[axes])
  return jnp.sum(above + each(below, behind[parity, axes]), axis=0)
