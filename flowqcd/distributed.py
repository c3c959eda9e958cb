"""Work over devices: the only file that says pmap.

Work is split along one leading axis of independent items (samples, streams). Randomness is keyed by an item's global
index, never by the device that happens to run it, so results do not depend on how many devices there are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flowqcd import domains, hosts
from flowqcd.types import Array, Key

Tree = TypeVar("Tree")
_AXIS = "devices"


def item_keys(key: Key, step: int | Array, first: int | Array, count: int) -> Key:
  """Keys of items first .. first + count - 1 of a step: fold_in(fold_in(key, step), item). uint32 [count, 2].

  They are raw key data, which pmap can split over devices; jax.random takes them like any key.
  """
  return _item_keys(key, step, first, count)


@functools.partial(jax.jit, static_argnums=3)  # One program instead of a dozen, at every step.
def _item_keys(key: Key, step: int | Array, first: int | Array, count: int) -> Key:
  base = jax.random.fold_in(key, step)
  keys = jax.vmap(lambda i: jax.random.fold_in(base, i))(first + jnp.arange(count))
  return jax.random.key_data(keys)


_per_lattice = 1


def split_lattices(devices: int) -> None:
  """Let `parallel_map` spread each lattice over so many devices from now on, by its time slices: see `domains`.

  Raises ValueError for a number that does not divide that of all devices.
  """
  global _per_lattice
  domains.mesh(devices)
  _per_lattice = devices


def places() -> int:
  """How many items `parallel_map` has at work at once, each on one or more devices of all hosts."""
  return jax.device_count() // _per_lattice


def check_divisible(count: int, what: str) -> None:
  """Raise ValueError unless `count` items can be split evenly over all devices of all hosts."""
  devices = jax.device_count()
  if count % devices:
    raise ValueError(f"{what} = {count} must be a multiple of the number of devices, {devices}")


def _place(tree: Tree, spec: PartitionSpec) -> Tree:
  # pmap moves host arrays by itself, but refuses device arrays that lie elsewhere than it wants them.
  mesh = Mesh(np.array(jax.local_devices()), (_AXIS,))
  return jax.device_put(tree, NamedSharding(mesh, spec))


def _split(tree: Tree) -> Tree:
  n = jax.local_device_count()
  parts = jax.tree.map(lambda x: x.reshape((n, x.shape[0] // n, *x.shape[1:])), tree)
  return _place(parts, PartitionSpec(_AXIS))


def _join(tree: Tree) -> Tree:
  """Host arrays [items, ...] from one shard [1, items/n, ...] on each local device.

  On the host, since joining on devices is a collective program of its own: started while another is still running, the
  two can wait for each other for ever on a CPU with few threads.
  """

  def joined(x: Array) -> np.ndarray:
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    parts = [np.asarray(shard.data) for shard in shards]
    return np.concatenate([part.reshape((-1, *part.shape[2:])) for part in parts])

  return jax.tree.map(joined, tree)


def parallel_map(function: Callable[..., Any], chunk: int, num_shared: int = 0) -> Callable[..., Any]:
  """(shared..., items...) -> function over the leading axis of items, split over all devices of all hosts.

  On each device, or each row of devices that share lattices (`split_lattices`), `chunk` items are vectorised at a time and
  the chunks run in turn: on a CPU a few configurations fill the cache. The first num_shared arguments go to every item
  whole. An item count that devices do not divide is padded. Every process gives all items; results are NumPy arrays, of all
  items on every process.
  """

  def on_device(*args: Any) -> Any:
    shared, items = args[:num_shared], args[num_shared:]
    return lax.map(lambda item: function(*shared, *item), items, batch_size=chunk)

  axes = (None,) * num_shared
  compiled: dict[int, Callable] = {}

  def whole(shared: tuple, items: tuple) -> Any:
    count = jax.tree.leaves(items)[0].shape[0]
    mine = count // jax.process_count()
    own = slice(jax.process_index() * mine, (jax.process_index() + 1) * mine)
    items = jax.tree.map(lambda x: x[own], items) if jax.process_count() > 1 else items
    if len(items) not in compiled:
      compiled[len(items)] = jax.pmap(on_device, axis_name=_AXIS, in_axes=axes + (0,) * len(items))
    return hosts.gathered(_join(compiled[len(items)](*_place(shared, PartitionSpec()), *_split(items))))

  over_meshes = _mesh_map(function, chunk, num_shared)

  def run(*args: Any) -> Any:
    shared, items = args[:num_shared], args[num_shared:]
    count = jax.tree.leaves(items)[0].shape[0]
    missing = -count % places()
    repeat = lambda x: jnp.concatenate([x, jnp.repeat(x[:1], missing, axis=0)])
    items = jax.tree.map(repeat, items) if missing else items
    result = (whole if _per_lattice == 1 else over_meshes)(shared, items)
    return jax.tree.map(lambda x: x[:count], result) if missing else result

  return run


def _mesh_map(function: Callable[..., Any], chunk: int, num_shared: int) -> Callable[[tuple, tuple], Any]:
  """(shared, items) -> host arrays of the function, items over the rows of the mesh and each lattice within a row.

  All rows are one program, and loops as long as the item needs that takes longest: halos are exchanged in all of them at
  once, and a row that had left its loop would never come.
  """

  def of_all(mesh: Mesh, shared: tuple, items: tuple) -> Any:
    rows = mesh.shape[domains.ITEMS]
    each = jax.tree.leaves(items)[0].shape[0] // rows
    size = next(n for n in range(min(chunk, each), 0, -1) if each % n == 0)
    in_turn = lambda x: jnp.swapaxes(x.reshape((rows, each // size, size, *x.shape[1:])), 0, 1)
    together = jax.vmap(jax.vmap(lambda *item: function(*shared, *item)))
    found = lax.map(lambda group: together(*group), jax.tree.map(in_turn, items))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape((rows * each, *x.shape[3:])), found)

  program = jax.jit(of_all, static_argnums=0)

  def run(shared: tuple, items: tuple) -> Any:
    mesh = domains.mesh(_per_lattice)
    with jax.set_mesh(mesh):
      shared = jax.tree.map(lambda x: domains.put(x, NamedSharding(mesh, PartitionSpec())), shared)
      result = program(mesh, shared, jax.tree.map(domains.place_items, items))
    # No collective of ours may start while one of the program's is still running: see `_join`.
    result = jax.block_until_ready(result)
    return (
      jax.tree.map(np.asarray, result) if hosts.is_alone() else multihost_utils.process_allgather(result, tiled=True)
    )

  return run


def data_parallel(
  terms: Callable[..., tuple[Any, Any]],
  chunk: int,
  fixed: Any = (),
  zeros: Callable[[Any], Any] = lambda params: jax.tree.map(jnp.zeros_like, params),
) -> Callable[[Any, Key], tuple[Any, Any]]:
  """(params, keys [batch]) -> (mean of terms, per-item outputs [batch]), batch split over devices.

  terms: (params, keys of some items [n], *fixed) -> (sum over these items, such as the gradient of their summed loss;
  outputs [n]); fixed: further arguments, the same at every step and item; zeros: params -> a sum of no items, where it is
  not like the parameters. Chunks are accumulated, so that a batch may be larger than memory. Keys are this host's share;
  the mean and the outputs, which are NumPy arrays, are of all hosts.
  """

  def on_device(params: Any, keys: Key, *fixed: Any) -> tuple[Any, Any]:
    count = keys.shape[0]
    # The largest chunk that fits: an awkward number of devices must not end a run at a later phase's batch.
    size = next(n for n in range(min(chunk, count), 0, -1) if count % n == 0)
    groups = keys.reshape((count // size, size, *keys.shape[1:]))

    def accumulate(total: Any, group: Key) -> tuple[Any, Any]:
      found, outputs = terms(params, group, *fixed)
      return jax.tree.map(jnp.add, total, found), outputs

    total, outputs = lax.scan(accumulate, zeros(params), groups)
    mean = lax.pmean(jax.tree.map(lambda t: t / count, total), _AXIS)
    return mean, jax.tree.map(lambda x: x.reshape((count, *x.shape[2:])), outputs)

  mapped = jax.pmap(on_device, axis_name=_AXIS, in_axes=(None, 0) + (None,) * len(fixed))
  fixed = _place(fixed, PartitionSpec())

  def run(params: Any, keys: Key) -> tuple[Any, Any]:
    mean, outputs = mapped(_place(params, PartitionSpec()), _split(keys), *fixed)
    # All devices hold the same mean; the first one's copy, without a gather.
    return jax.tree.map(lambda x: x.addressable_data(0)[0], mean), hosts.gathered(_join(outputs))

  return run
