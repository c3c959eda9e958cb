"""The staples of a layer's active links, gathered by index, so that layers with different masks run as one scan.

With masks in which no plaquette holds two active links (`masks.Config`) all 2(Nd-1) staples of an active link are frozen.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flowqcd.flows import masks
from flowqcd.lattice import fusion, group, sites
from flowqcd.types import AnyArray, Array


class Table(NamedTuple):
  """Flat positions mu V + x in links [Nd, Nc, Nc, V]: of the active links, int [n], and of their staples' three links.

  above, below: int [Nd-1, 3, n], in the order in which `gather` multiplies them.
  """

  active: AnyArray
  above: AnyArray
  below: AnyArray


class Active(NamedTuple):
  """Active links U [Nc, Nc, n] and their staples A_k [2(Nd-1), Nc, Nc, n]: tr U A_k is a plaquette."""

  links: Array
  staples: Array


def table(m: masks.Masks, lattice: sites.Extents) -> Table:
  """Positions for the links of one mask. For the link (mu, x) and every nu != mu

  above: U_nu(x+mu), U_mu(x+nu), U_nu(x);  below: U_nu(x+mu-nu), U_mu(x-nu), U_nu(x-nu).
  """
  nd, volume = len(lattice), int(np.prod(lattice))
  index, x, mu = np.arange(volume).reshape(lattice), m.sites, int(m.direction)

  def seen(link: int, *steps: tuple[int, int]) -> np.ndarray:
    moved = index
    for direction, sign in steps:
      moved = np.roll(moved, -sign, direction)
    return link * volume + moved.ravel()[x]

  others = [nu for nu in range(nd) if nu != mu]
  above = [[seen(nu, (mu, 1)), seen(mu, (nu, 1)), seen(nu)] for nu in others]
  below = [[seen(nu, (mu, 1), (nu, -1)), seen(mu, (nu, -1)), seen(nu, (nu, -1))] for nu in others]
  return Table(seen(mu), np.array(above), np.array(below))


def stack(configs: list[masks.Config], lattice: sites.Extents) -> Table:
  """Tables of many layers with a leading axis of layers, for a scan. Raises MaskError where one does not fit."""
  each = [table(masks.make(config, lattice), lattice) for config in configs]
  return Table(*(np.stack(parts) for parts in zip(*each)))


def gather(v: Array, t: Table) -> Active:
  """Active links and staples of flat links v: above a (c b)^dag, below (b a)^dag c, for a, b, c as in `table`."""
  nc = v.shape[1]
  # Rows are gathered, and scattered by the gradient, faster than columns.
  rows = jnp.moveaxis(v.reshape(len(v), nc * nc, -1), 1, 2).reshape(-1, nc * nc)

  def at(index: AnyArray) -> Array:
    return jnp.moveaxis(rows[index].reshape(*index.shape, nc, nc), -3, -1)

  (a, b, c), (d, e, f) = (jnp.moveaxis(at(index), 1, 0) for index in (t.above, t.below))
  inner = fusion.materialise((group.mul(c, b), group.mul(e, d)))
  above, below = group.mul(a, group.adjoint(inner[0])), group.mul(group.adjoint(inner[1]), f)
  return fusion.materialise(Active(at(t.active), jnp.concatenate([above, below])))


def scatter(v: Array, t: Table, links: Array) -> Array:
  """v with its active links replaced by links [Nc, Nc, n]."""
  nd, nc = v.shape[:2]
  rows = jnp.moveaxis(v.reshape(nd, nc * nc, -1), 1, 2).reshape(-1, nc * nc)
  rows = rows.at[t.active].set(links.reshape(nc * nc, -1).T, unique_indices=True)
  return jnp.moveaxis(rows.reshape(nd, -1, nc * nc), 2, 1).reshape(v.shape)
