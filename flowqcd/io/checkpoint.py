"""Checkpoints of training with orbax: atomic, counted, and never unpickled."""

from __future__ import annotations

import logging
import os
import pathlib
import warnings
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

Tree = TypeVar("Tree")


class CheckpointError(ValueError):
  """No checkpoint in a folder can be used."""


class Checkpointer:
  """Keeps the newest `keep` states of a run in a folder. State is any pytree of arrays (PRNG keys as raw data)."""

  def __init__(self, directory: str | os.PathLike, keep: int | None = 3) -> None:
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax reports every save at length.
    self._directory = pathlib.Path(directory).absolute()
    # On several hosts each process reads by itself and the first one writes: states are the same everywhere, and orbax
    # would otherwise wait for all of them at every step.
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(),
      active_processes={jax.process_index()},
      barrier_sync_key_prefix=f"host{jax.process_index()}",
    )
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      enable_async_checkpointing=False,
      create=jax.process_count() == 1,
      multiprocessing_options=alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions(),
    )
    self._directory.mkdir(parents=True, exist_ok=True)
    self._manager = ocp.CheckpointManager(self._directory, options=options)

  def save(self, step: int, state: Any) -> None:
    """Save the state of a step; on return it is on disk, and older ones beyond `keep` are gone.

    On several hosts the first process writes.
    """
    if jax.process_index():
      return
    self._manager.save(step, args=ocp.args.StandardSave(jax.tree.map(np.asarray, state)), force=True)
    self._manager.wait_until_finished()

  def latest_step(self) -> int | None:
    """The newest saved step, None if there is none."""
    return self._manager.latest_step()

  def restore(self, template: Tree) -> Tree:
    """The newest state that can be read, in the structure, types and devices of `template`.

    Damaged ones are passed over with a warning, and deleted once an older one could be read. Raises CheckpointError if
    none can be read, or if what is read is of another model.
    """
    state, damaged = self._newest(template)
    for bad in damaged if jax.process_index() == 0 else ():
      self._manager.delete(bad)
    return state

  def _newest(self, template: Tree) -> tuple[Tree, list[int]]:
    """The newest readable state, and the steps of those that were passed over."""
    abstract = jax.tree.map(_described, template)
    failures, damaged = [], []
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
      except Exception as error:  # orbax raises whatever its storage layers raise.
        failures.append(f"step {step}: {str(error).splitlines()[0][:120]}")
        damaged.append(step)
        warnings.warn(f"checkpoint {self._directory / str(step)} cannot be read", stacklevel=3)
        continue
      self._check_shapes(step, state, template)
      return jax.tree.map(jax.numpy.asarray, state), damaged
    raise CheckpointError(f"no usable checkpoint in {self._directory} ({'; '.join(failures) or 'it is empty'})")

  def _check_shapes(self, step: int, state: Tree, template: Tree) -> None:
    # orbax returns arrays as they were stored, whatever shape was asked for.
    for (path, found), (_, wanted) in zip(*map(jax.tree.leaves_with_path, (state, template)), strict=True):
      if np.shape(found) != np.shape(wanted):
        raise CheckpointError(
          f"{self._directory / str(step)} is of another model: {jax.tree_util.keystr(path)} has shape {np.shape(found)}, "
          f"not {np.shape(wanted)}"
        )

  def close(self) -> None:
    """Finish pending work."""
    self._manager.close()


def read(directory: str | os.PathLike, name: str, template: Tree) -> Tree:
  """One field of the newest readable state in another run's folder, whatever the others are: of another optimiser, say.

  Raises CheckpointError if there is no such folder, or no state in it whose field has the template's names and shapes.
  """
  if not pathlib.Path(directory).is_dir():
    raise CheckpointError(f"{directory} is no folder of checkpoints")
  wanted = {_name(path): x for path, x in jax.tree.leaves_with_path(template)}
  manager = Checkpointer(directory, keep=None)
  try:
    failures = []
    for step in sorted(manager._manager.all_steps(), reverse=True):
      try:
        state = manager._manager.restore(step, args=ocp.args.StandardRestore())
      except Exception as error:  # orbax raises whatever its storage layers raise.
        failures.append(f"step {step}: {str(error).splitlines()[0][:120]}")
        warnings.warn(f"checkpoint {manager._directory / str(step)} cannot be read", stacklevel=2)
        continue
      found = {_name(path): x for path, x in jax.tree.leaves_with_path(state[name])}
      shapes = [{key: np.shape(x) for key, x in tree.items()} for tree in (found, wanted)]
      differing = sorted(k for k in found.keys() | wanted.keys() if shapes[0].get(k) != shapes[1].get(k))
      if differing:
        what = ", ".join(f"{k} has shape {shapes[0].get(k)}, not {shapes[1].get(k)}" for k in differing[:3])
        raise CheckpointError(f"{manager._directory / str(step)} is of another model: {what}")
      return jax.tree.unflatten(
        jax.tree.structure(template), [jax.numpy.asarray(found[k], x.dtype) for k, x in wanted.items()]
      )
    raise CheckpointError(f"no usable checkpoint in {directory} ({'; '.join(failures) or 'it is empty'})")
  finally:
    manager.close()


def _name(path: tuple) -> str:
  """Of a leaf, the same for tuples and for the lists that orbax makes of them."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _described(x: Any) -> np.ndarray:
  # Host arrays: device arrays are stored with their devices, and read back only where there are the same.
  return np.zeros(np.shape(x), jax.numpy.asarray(x).dtype)
