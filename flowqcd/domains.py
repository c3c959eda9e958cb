"""One lattice over several devices: each has some of its time slices.

Time is the slowest index of flat sites, so that a device has a contiguous piece of every field, and XLA does the rest: a
shift in time moves one slice of each piece to a neighbour, a shift in space nothing, and sums are added up. What is written
for one device runs on many, with the same random numbers. Only what would move more than that looks here.

    with jax.set_mesh(domains.mesh(4)):
      u = domains.place(u)
      state, info = jax.jit(kernel.step)(key, hmc.State(u))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flowqcd.types import AnyArray, Array

ITEMS, TIME = "items", "time"
"""Axes of a mesh of devices."""


def mesh(time: int) -> Mesh:
  """All devices of all hosts, [items, time]: `time` of them for one lattice.

  Raises ValueError for a number that does not divide that of devices.
  """
  devices = jax.device_count()
  if time < 1 or devices % time:
    raise ValueError(f"{devices} devices cannot be shared out to lattices over {time} of them each")
  return jax.make_mesh((devices // time, time), (ITEMS, TIME), axis_types=(AxisType.Auto, AxisType.Auto))


def count() -> int:
  """Over how many devices a lattice is split where this is traced: of the mesh that is set; one without."""
  current = jax.sharding.get_abstract_mesh()
  types = dict(zip(current.axis_names, current.axis_types))
  return current.shape[TIME] if types.get(TIME, AxisType.Manual) != AxisType.Manual else 1


def place(u: AnyArray, leading: int = 0) -> Array:
  """Links [Nd, Nc, Nc, *L] on the devices of the mesh that is set, split in time.

  leading: axes before these, of which the first is split over items. Raises ValueError without a mesh of such axes, and for
  extents that do not divide.
  """
  current = jax.sharding.get_mesh()
  if TIME not in current.axis_names:
    raise ValueError("no mesh with a time axis is set: with jax.set_mesh(domains.mesh(4)), for four devices a lattice")
  extent, parts = u.shape[leading + 3], current.shape[TIME]
  if extent % parts:
    raise ValueError(f"{extent} time slices cannot be shared out to {parts} devices")
  return put(u, NamedSharding(current, _spec(u.ndim, leading)))


def put(x: AnyArray, place: NamedSharding) -> Array:
  """An array that every process has, on the devices of all: each takes what is its own, and nothing is sent."""
  if place.is_fully_addressable:
    return jax.device_put(x, place)
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, place, lambda index: x[index])


def _spec(ndim: int, leading: int) -> PartitionSpec:
  """Of links with some axes before those of `place`."""
  first = (ITEMS,) if leading else ()
  return PartitionSpec(*first, *(None,) * (leading + 3 - len(first)), TIME, *(None,) * (ndim - leading - 4))


def split(u: Array) -> Array:
  """The same links [Nd, Nc, Nc, *L], told to be split in time: for links made from nothing, such as a prior's."""
  return jax.lax.with_sharding_constraint(u, _spec(u.ndim, 0)) if count() > 1 else u


def place_items(x: AnyArray) -> Array:
  """Items [n, ...] of any kind on the mesh that is set: split over items, and in time where they look like links."""
  nd = x.ndim - 4
  if nd > 0 and x.shape[1] == nd and x.shape[2] == x.shape[3]:
    return place(x, 1)
  return put(x, NamedSharding(jax.sharding.get_mesh(), PartitionSpec(ITEMS)))


def locally(function: Callable[..., Sequence[Array]], *arrays: Array) -> list[Array]:
  """A function of arrays, with results of their shapes, that each device computes of its own pieces.

  Flat fields [..., V] are in pieces; what does not divide is whole on every device.
  """
  n = count()
  if n == 1:
    return list(function(*arrays))
  is_split = lambda x: x.ndim > 0 and x.shape[-1] % n == 0
  specs = tuple(PartitionSpec(*(None,) * (x.ndim - 1), TIME) if is_split(x) else PartitionSpec() for x in arrays)
  each = lambda *pieces: tuple(function(*pieces))
  return list(jax.shard_map(each, in_specs=specs, out_specs=specs, axis_names={TIME}, check_vma=False)(*arrays))


def pieces(x: Array) -> Array:
  """Flat fields [..., V] as [..., n, V/n], the pieces of n devices; what does not divide as one piece."""
  n = count() if x.shape[-1] % count() == 0 else 1
  return x.reshape((*x.shape[:-1], n, -1))
