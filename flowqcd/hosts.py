"""Several hosts: how they join and leave, and what they tell each other.

All processes run the same program, and each has the results of all items. The disk is the first process's: what is read
there reaches all by `shared`, and `on_first` writes. The others need not see it.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

T = TypeVar("T")
Tree = TypeVar("Tree")
_FOREVER = 10**6  # Seconds; JAX keeps them as milliseconds in 32 bits.
_SILENCE = 45
"""Seconds without a sign of life from a process after which JAX ends all others; a closed connection is seen at once."""


def initialise_hosts(
  coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float = 300.0
) -> None:
  """Join a multi-host run; call before any other use of JAX. All None lets JAX detect a known cluster.

  timeout: seconds to wait for the others. Raises TimeoutError after that, and the process should then end at once, by
  os._exit: JAX goes on waiting. Raises ValueError for a coordinator that is not address:port, a timeout that is not
  positive, and what `jax.distributed.initialize` raises.
  """
  if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
    raise ValueError(f"the coordinator must be address:port, not {coordinator}")
  if not timeout > 0:
    raise ValueError(f"the time to wait for other processes must be positive, not {timeout} s")
  raised: list[BaseException] = []

  def join() -> None:
    try:
      jax.distributed.initialize(
        coordinator, num_processes, process_id, None if coordinator else slurm_devices(os.environ),
        initialization_timeout=_FOREVER, heartbeat_timeout_seconds=_SILENCE,
      )  # fmt: skip
    except BaseException as error:  # Raised again by the caller.
      raised.append(error)

  # JAX's own timeout ends the process from C++, with a stack trace. So the wait is another thread's, and has no end.
  waiting = threading.Thread(target=join, daemon=True)
  waiting.start()
  waiting.join(timeout)
  if waiting.is_alive():
    where = "that JAX detected" if coordinator is None else coordinator
    count = "all" if num_processes is None else num_processes
    who = "" if process_id is None else f"; this is process {process_id}"
    raise TimeoutError(f"coordinator {where}: expected {count} processes, not all there after {timeout:g} s{who}")
  if raised:
    raise raised[0]


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
  """Which of the GPUs that it sees a SLURM task takes; None leaves it to JAX, which takes the one of the task's number.

  All of them where it is the only task on its node, and the one that it sees where it sees one, as with --gpus-per-task.
  """
  if "SLURM_JOB_ID" not in environment:
    return None
  on_node = ",".join(map(str, range(int(environment.get("SLURM_GPUS_ON_NODE") or 0))))
  visible = environment.get("CUDA_VISIBLE_DEVICES", on_node)  # Empty, it hides all.
  count = len([name for name in visible.split(",") if name])
  # As 2(x3),1: three nodes with two tasks and one with one.
  tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
  is_only = bool(tasks) and all(part.split("(")[0] == "1" for part in tasks.split(","))
  return list(range(count)) if count == 1 or (count and is_only) else None


def check_even(devices: Sequence[Any]) -> None:
  """Raise ValueError unless every process has as many of all hosts' devices as the others."""
  counts = Counter(device.process_index for device in devices)
  if len(set(counts.values())) > 1:
    each = ", ".join(f"process {process} has {counts[process]}" for process in sorted(counts))
    raise ValueError(f"every process needs the same number of devices: {each}")


def leave(status: int) -> typing.NoReturn:
  """End this process of several at once. An ordinary exit waits for the others, some of which may be gone."""
  try:
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first_process():
      # The others are told of its end, whatever they are at: they first have time to say what they know.
      time.sleep(2)
  finally:  # Also where there is no backend to ask which process this is.
    os._exit(status)


def is_first_process() -> bool:
  """True on the one process that writes files."""
  return jax.process_index() == 0


class FirstProcessError(ValueError):
  """The first process of several has failed, and says why; the others end with it."""


_alone = False
"""Whether the first process is in `on_first`, where it must wait for no other."""


def is_alone() -> bool:
  """Whether no other process is where this one is: there is none, or this is within `on_first`."""
  return jax.process_count() == 1 or _alone


def on_first(function: Callable[[], Any]) -> Any:
  """Call on the first process alone, and return what it returns there, None on the others, once it is done.

  Where it raises, all processes raise, at once: the others FirstProcessError, where they would wait for it until a timeout.
  """
  global _alone
  if jax.process_count() == 1 or _alone:
    return function()
  result, raised = None, None
  if is_first_process():
    _alone = True
    try:
      result = function()
    except Exception as error:
      raised = error
    finally:
      _alone = False
  failed = from_first(np.int32(raised is not None))
  if raised is not None:
    raise raised
  if failed:
    raise FirstProcessError("the first process has ended with an error, which it names")
  return result


def from_first(tree: Tree) -> Tree:
  """The first process's arrays, on all processes; their shapes are the same everywhere."""
  return tree if is_alone() else _across(tree, _of_first)


def shared(function: Callable[[], T]) -> T:
  """What the function returns on the first process, where alone it is called, on all of them; errors as of `on_first`.

  For JSON values, arrays, and lists, tuples and dictionaries of these.
  """
  if is_alone():
    return function()
  found = on_first(function)
  arrays: list[np.ndarray] = []
  # The shape first, so that the others know what to wait for.
  outline = json.dumps(_outline(found, arrays)).encode() if is_first_process() else b""
  size = int(from_first(np.int64(len(outline))))
  text = from_first(np.frombuffer(outline, np.uint8) if is_first_process() else np.zeros(size, np.uint8))
  plan = json.loads(bytes(text))
  if not is_first_process():
    arrays = [np.zeros(shape, dtype) for shape, dtype in _shapes(plan)]
  # As bytes: 64 bits would become 32 on their way where JAX is told so.
  sent = [np.asarray(from_first(np.frombuffer(x.tobytes(), np.uint8))).tobytes() for x in arrays]
  return _rebuilt(plan, iter(sent))


def _outline(value: Any, arrays: list[np.ndarray]) -> Any:
  """A value as JSON, [kind, content], with its arrays left out and listed."""
  if isinstance(value, (np.ndarray, np.generic, jax.Array)):
    value = np.asarray(value)
    arrays.append(value)
    return ["array", [value.shape, value.dtype.str]]
  if isinstance(value, dict):
    return ["dict", {name: _outline(x, arrays) for name, x in value.items()}]
  if isinstance(value, (list, tuple)):
    return [type(value).__name__ if type(value) in (list, tuple) else "tuple", [_outline(x, arrays) for x in value]]
  return ["json", value]


def _shapes(plan: Any) -> list[tuple[list[int], str]]:
  """Of the arrays that were left out, in their order."""
  kind, content = plan
  if kind == "array":
    return [content]
  parts = content.values() if kind == "dict" else content if kind in ("list", "tuple") else ()
  return [found for part in parts for found in _shapes(part)]


def _rebuilt(plan: Any, arrays: Iterator[bytes]) -> Any:
  kind, content = plan
  if kind == "array":
    shape, dtype = content
    return np.frombuffer(next(arrays), dtype).reshape(shape).copy()
  if kind == "dict":
    return {name: _rebuilt(x, arrays) for name, x in content.items()}
  if kind in ("list", "tuple"):
    return (list if kind == "list" else tuple)(_rebuilt(x, arrays) for x in content)
  return content


def summed(value: float) -> float:
  """The sum of the processes' values."""
  return value if is_alone() else float(np.sum(_across(np.float64(value), _of_each)))


def gathered(tree: Tree) -> Tree:
  """Host arrays [items/processes, ...] of all processes, in their order."""
  return tree if is_alone() else jax.tree.map(np.concatenate, _across(tree, _of_each))


def _of_each(tree: Tree) -> Tree:
  return tree


def _of_first(tree: Tree) -> Tree:
  return jax.tree.map(lambda x: x[0], tree)


@functools.cache
def _one_each() -> Mesh:
  """One device of every process."""
  first = {device.process_index: device for device in reversed(jax.devices())}
  return Mesh(np.array([first[i] for i in sorted(first)]), ("processes",))


@functools.cache
def _exchange(combine: Callable[[Any], Any]) -> Callable[[Any], Any]:
  return jax.jit(combine, out_shardings=NamedSharding(_one_each(), PartitionSpec()))


def _across(tree: Tree, combine: Callable[[Tree], Tree]) -> Tree:
  """Host arrays on all processes of what they have between them, [processes, ...] of each leaf, put together.

  By one device each: the others would only hold copies.
  """
  place = NamedSharding(_one_each(), PartitionSpec("processes"))
  sent = jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, np.asarray(x)[None]), tree)
  return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), _exchange(combine)(sent))
