"""Files that appear whole or not at all, and the errors of what is stored."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO


class StoreError(ValueError):
  """What is stored cannot be used: damaged, in use, or not what was asked for. The message names the file."""


class FieldFileError(StoreError):
  """A gauge-field file is not what it should be; the message names the file and what is wrong."""


class OtherExtentsError(FieldFileError):
  """The file's extents are not those that the caller says. Nothing is known to be wrong with the file."""


class NoExtentsError(FieldFileError):
  """The file does not say its extents, and the caller has not said them. Nothing is known to be wrong with the file."""


LOCK = ".lock"
"""Name of the file that a folder's writer locks (`flowqcd.io.locks`)."""
_TEMPORARY = ".tmp"
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links answer."""


def is_vacant(folder: str | os.PathLike) -> bool:
  """True where there is no folder, or nothing in it but a lock file and what a kill in mid-write left behind."""
  folder = pathlib.Path(folder)
  if not folder.exists():
    return True
  return all(item.name == LOCK or _is_stale(item) for item in folder.iterdir())


def _is_stale(item: pathlib.Path) -> bool:
  return item.name.startswith(".") and item.suffix == _TEMPORARY


def remove_stale(folder: str | os.PathLike) -> None:
  """Remove what kills in mid-write left behind. For the process alone that holds the folder's lock."""
  for item in pathlib.Path(folder).iterdir():
    if _is_stale(item):
      item.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic(path: str | os.PathLike, overwrite: bool = False) -> Iterator[BinaryIO]:
  """A binary file handle whose content becomes `path` when the block ends, and is dropped if it raises.

  Written beside the target, flushed to disk, then renamed, which is atomic; unless overwrite, linked, which never replaces
  what another process has written meanwhile. Raises FileExistsError unless overwrite, OSError with the path where the file
  system fails.
  """
  path = pathlib.Path(path)
  if path.exists() and not overwrite:
    raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
  temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
  try:
    with named(path, temporary):
      with open(temporary, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
      if overwrite:
        os.replace(temporary, path)
      else:
        _publish(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  _sync(path.parent)


@contextlib.contextmanager
def named(path: pathlib.Path, temporary: pathlib.Path | None = None) -> Iterator[None]:
  """Errors of the file system within the block that name no file, or the temporary one, name `path`."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename not in (None, str(temporary)):
      raise
    raise OSError(error.errno, error.strerror, str(path)) from None


def _publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
  """Give a finished file its name unless that is taken. Raises FileExistsError."""
  try:
    os.link(temporary, path)
  except FileExistsError:
    # Over a network a link may be made, and its answer lost: then the name is taken by the file itself.
    if not (path.exists() and os.path.samefile(temporary, path)):
      raise FileExistsError(f"{path} has been written by another process meanwhile; it is kept") from None
  except OSError as error:
    if error.errno not in _NO_LINKS:
      raise
    _reserve(path)
    os.replace(temporary, path)


def _reserve(path: pathlib.Path) -> None:
  try:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
  except FileExistsError:
    raise FileExistsError(f"{path} has been written by another process meanwhile; it is kept") from None


def sync_below(folder: pathlib.Path) -> None:
  """Flush all files below a folder, and the lists of names in it, to disk."""
  for path in sorted(folder.rglob("*")):
    _sync(path)
  _sync(folder)


def _sync(path: pathlib.Path) -> None:
  """Flush a file, or a folder's list of names, where the file system does that."""
  with contextlib.suppress(OSError):
    handle = os.open(path, os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)
