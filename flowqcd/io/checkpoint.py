"""Checkpoints of training with orbax: atomic, counted, and never unpickled."""

from __future__ import annotations

import logging
import os
import pathlib
import warnings
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

Tree = TypeVar("Tree")


class CheckpointError(ValueError):
  """No checkpoint in a folder can be used."""


class Checkpointer:
  """Keeps the newest `keep` states of a run in a folder. State is any pytree of arrays (PRNG keys as raw data)."""

  def __init__(self, directory: str | os.PathLike, keep: int = 3) -> None:
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every save at length.
    self._directory = pathlib.Path(directory).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
    self._manager = ocp.CheckpointManager(self._directory, options=options)

  def save(self, step: int, state: Any) -> None:
    """Save the state of a step; on return it is on disk, and older ones beyond `keep` are gone."""
    self._manager.save(step, args=ocp.args.StandardSave(state), force=True)
    self._manager.wait_until_finished()

  def latest_step(self) -> int | None:
    """The newest saved step, None if there is none."""
    return self._manager.latest_step()

  def restore(self, template: Tree) -> Tree:
    """The newest state that can be read, in the structure, types and devices of `template`.

    A damaged one is passed over with a warning. Raises CheckpointError if none can be read.
    """
    abstract = jax.tree.map(_described, template)
    failures = []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
      except Exception as error:  # orbax raises whatever its storage layers raise.
        failures.append(f"step {step}: {str(error).splitlines()[0][:120]}")
        warnings.warn(f"checkpoint {self._directory / str(step)} cannot be read", stacklevel=2)
        continue
      for bad in failures:
        self._manager.delete(int(bad.split()[1].rstrip(":")))
      return state
    raise CheckpointError(f"no usable checkpoint in {self._directory} ({'; '.join(failures) or 'it is empty'})")

  def close(self) -> None:
    """Finish pending work."""
    self._manager.close()


def _described(x: Any) -> jax.ShapeDtypeStruct:
  x = jax.numpy.asarray(x)
  # Without a target sharding orbax guesses from the file, and fails on other hardware.
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
