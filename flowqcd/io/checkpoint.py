"""Checkpoints of training with orbax: atomic, counted, verified by digests, and never unpickled."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import pathlib
import warnings
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from flowqcd.io import digests, files, metrics

Tree = TypeVar("Tree")

_DIGESTS = "digests.json"
"""Record of the SHA-256 of a step's files, among them, written before orbax gives the step its name."""
_ITEM = "default"
"""Folder of the state within a step's."""


class CheckpointError(files.StoreError):
  """The checkpoint that is asked for cannot be used, or there is none."""


class _Handler(ocp.StandardCheckpointHandler):
  """orbax's own, with the digests of all files beside them."""

  def finalize(self, directory: Any) -> None:
    """Called with all files written, before the step has its name: a kill leaves both or none."""
    super().finalize(directory)
    folder = pathlib.Path(directory)
    files.sync_below(folder)
    metrics.write_json(folder / _DIGESTS, {"files": digests.of_files(folder, _DIGESTS)})


@ocp.args.register_with_handler(_Handler, for_save=True)
@dataclasses.dataclass
class _Save(ocp.args.StandardSave):
  """A state to save."""


@ocp.args.register_with_handler(_Handler, for_restore=True)
@dataclasses.dataclass
class _Restore(ocp.args.StandardRestore):
  """A state to restore."""


class Checkpointer:
  """Keeps the newest `keep` states of a run in a folder. State is any pytree of arrays (PRNG keys as raw data).

  read_only: writes and removes nothing, so that a run may go on beside.
  """

  def __init__(self, directory: str | os.PathLike, keep: int | None = 3, read_only: bool = False) -> None:
    logger = logging.getLogger("absl")
    logger.setLevel(logging.ERROR)  # orbax warns of being told to read only,
    self._directory = pathlib.Path(directory).absolute()
    # On several hosts each process reads by itself and the first one writes: states are the same everywhere, and orbax
    # would otherwise wait for all of them at every step.
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(),
      active_processes={jax.process_index()},
      barrier_sync_key_prefix=f"host{jax.process_index()}",
    )
    options = ocp.CheckpointManagerOptions(
      save_interval_steps=0 if read_only else 1,  # What read_only implies; orbax warns of other values.
      max_to_keep=None if read_only else keep,
      enable_async_checkpointing=False,
      create=jax.process_count() == 1 and not read_only,
      read_only=read_only,
      lightweight_initialize=True,  # Times of saving are not needed, and one damaged record of them would bar all steps.
      multiprocessing_options=alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions(),
    )
    if not read_only:
      self._directory.mkdir(parents=True, exist_ok=True)
    try:
      self._manager = ocp.CheckpointManager(self._directory, options=options)
    except Exception as error:  # orbax raises whatever its storage layers raise.
      raise _translated(error, f"{self._directory} is no folder of checkpoints") from None
    finally:
      logger.setLevel(logging.WARNING)  # and reports every save at length.

  def save(self, step: int, state: Any) -> None:
    """Save the state of a step; on return it is on disk, and older ones beyond `keep` are gone.

    On several hosts the first process writes. Raises CheckpointError or OSError where it cannot be written: older ones
    are kept then.
    """
    if jax.process_index():
      return
    try:
      self._manager.save(step, args=_Save(jax.tree.map(np.asarray, state)), force=True)
      self._manager.wait_until_finished()
    except Exception as error:  # orbax raises whatever its storage layers raise.
      raise _translated(
        error, f"checkpoint {self._directory / str(step)} cannot be written; older ones are kept"
      ) from None

  def latest_step(self) -> int | None:
    """The newest saved step, None if there is none."""
    return self._manager.latest_step()

  def restore(self, template: Tree) -> Tree:
    """The newest state, in the structure, types and devices of `template`.

    Raises CheckpointError if there is none, if its files are not those of their digests, naming the older steps that one
    can go back to, and if it is of another model. States of versions without digests are read with a warning.
    """
    step, state = self._newest(_Restore(jax.tree.map(_described, template)), template)
    self._check_shapes(step, state, template)
    return jax.tree.map(jax.numpy.asarray, state)

  def _newest(self, args: _Restore, template: Any = None) -> tuple[int, Any]:
    """The newest step and its state, verified. template: what `args` were made of, for the error."""
    step = self.latest_step()
    if step is None:
      raise CheckpointError(f"no checkpoint in {self._directory}: it is empty")
    damage = self._damage(step)
    if damage:
      raise CheckpointError(f"checkpoint {self._directory / str(step)} is damaged ({damage}); {self._remedy(step)}")
    try:
      return step, self._manager.restore(step, args=args)
    except Exception as error:  # orbax raises whatever its storage layers raise.
      what = f"checkpoint {self._directory / str(step)} cannot be read, or is of another model"
      difference = "" if template is None else self._difference(step, template)
      if difference:
        raise CheckpointError(f"{self._directory / str(step)} is of another model: {difference}") from None
      raise _translated(error, what, f"; {self._remedy(step)}") from None

  def _damage(self, step: int) -> str:
    """What is wrong with a step's files by their digests; empty where nothing is."""
    folder = self._directory / str(step) / _ITEM
    record = folder / _DIGESTS
    if not record.exists():
      warnings.warn(
        f"checkpoint {folder.parent} has no digests, as earlier versions wrote it: it is read unverified", stacklevel=4
      )
      return ""
    try:
      stated = metrics.read_json(record).get("files") or {}
      found = digests.of_files(folder, _DIGESTS)
    except files.StoreError as error:
      return str(error)
    wrong = [name for name in stated if stated[name] != found.get(name)]
    return f"not as written: {', '.join(wrong[:3])}" if wrong else ""

  def _remedy(self, step: int) -> str:
    older = [s for s in sorted(self._manager.all_steps(), reverse=True) if s < step]
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Of steps without digests.
      whole = [str(s) for s in older if not self._damage(s)]
    if not whole:
      return "no older one is whole: start anew in another folder"
    moved = [str(self._directory / str(s)) for s in [step, *older] if s > int(whole[0])]
    return (
      f"whole are the older steps {', '.join(whole)}: move {' and '.join(moved)} away to go on from step {whole[0]}"
    )

  def _difference(self, step: int, template: Any) -> str:
    """How a step's names and shapes differ from a template's; empty where they do not, or it cannot be read at all."""
    try:
      return _difference(_named(self._manager.restore(step, args=_Restore())), _named(template))
    except Exception:  # orbax raises whatever its storage layers raise, and the first error is the one to tell.
      return ""

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
  """One field of the newest state in another run's folder, whatever the others are: of another optimiser, say.

  Raises CheckpointError if there is no such folder, or as `Checkpointer.restore`, or if the newest state has no field with
  the template's names and shapes. Writes nothing.
  """
  if not pathlib.Path(directory).is_dir():
    raise CheckpointError(f"{directory} is no folder of checkpoints")
  wanted = _named(template)
  manager = Checkpointer(directory, read_only=True)
  try:
    step, state = manager._newest(_Restore())
  finally:
    manager.close()
  where = pathlib.Path(directory) / str(step)
  if name not in state:
    raise CheckpointError(f"{where} has no field '{name}', only {', '.join(sorted(state))}")
  found = _named(state[name])
  difference = _difference(found, wanted)
  if difference:
    raise CheckpointError(f"{where} is of another model: {difference}")
  return jax.tree.unflatten(
    jax.tree.structure(template), [jax.numpy.asarray(found[k], x.dtype) for k, x in wanted.items()]
  )


def _translated(error: Exception, what: str, remedy: str = "") -> Exception:
  """The project's error for one of orbax's or of its storage layers'; OSError, which has the path, as it is."""
  if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
    return error
  lines = str(error).strip().splitlines()
  return CheckpointError(f"{what} ({type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}){remedy}")


def _name(path: tuple) -> str:
  """Of a leaf, the same for tuples and for the lists that orbax makes of them."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(tree: Any) -> dict[str, Any]:
  return {_name(path): x for path, x in jax.tree.leaves_with_path(tree)}


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
  """Up to three names whose arrays have another shape, or are not in both."""

  def about(name: str) -> str | None:
    if name not in found or name not in wanted:
      return f"{name} is {'not in it' if name in wanted else 'not in this one'}"
    shapes = np.shape(found[name]), np.shape(wanted[name])
    return f"{name} has shape {shapes[0]}, not {shapes[1]}" if shapes[0] != shapes[1] else None

  differing = filter(None, map(about, sorted(found.keys() | wanted.keys())))
  return ", ".join(itertools.islice(differing, 3))


def _described(x: Any) -> np.ndarray:
  # Host arrays: device arrays are stored with their devices, and read back only where there are the same.
  return np.zeros(np.shape(x), jax.numpy.asarray(x).dtype)
