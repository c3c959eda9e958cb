"""One writer at a time in a folder: an advisory lock that the kernel drops when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import warnings
from typing import BinaryIO

from flowqcd.io import files

try:
  import fcntl
except ImportError:  # Not a POSIX system.
  fcntl = None

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What file systems without locks answer."""


class LockedError(files.StoreError):
  """Another process writes in a folder; the message names both."""


class Lock:
  """A folder held by this process until `release`, or until the process ends."""

  def __init__(self, key: tuple[int, int] | None) -> None:
    self._key = key

  def release(self) -> None:
    """Let the folder go, once all that hold it in this process have let it go."""
    key, self._key = self._key, None
    if key is None:
      return
    handle, count = _held.pop(key)
    if count > 1:
      _held[key] = (handle, count - 1)
    else:
      os.close(handle)


_held: dict[tuple[int, int], tuple[int, int]] = {}
"""(device, inode) of a lock file -> its open handle, and how many hold it in this process."""


def hold(folder: str | os.PathLike) -> Lock:
  """Hold an existing folder for writing; again within one process as often as need be.

  The first to hold it in a process removes what kills have left in it. Raises LockedError where another process holds it.
  Where the file system has no locks, that is a warning.
  """
  path = pathlib.Path(folder) / files.LOCK
  key = _key(path)
  if key in _held:
    handle, count = _held[key]
    _held[key] = (handle, count + 1)
    return Lock(key)
  # A second handle on a file that is held would drop the lock on closing, over a network.
  handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    _lock(handle, path)
  except OSError as error:
    os.close(handle)
    if error.errno not in _NO_LOCKS:
      raise
    warnings.warn(f"{folder}: this file system has no locks; let one process at a time write there", stacklevel=2)
    return Lock(None)
  except LockedError:
    os.close(handle)
    raise
  found = os.fstat(handle)
  key = found.st_dev, found.st_ino
  _held[key] = (handle, 1)
  files.remove_stale(folder)
  return Lock(key)


def _key(path: pathlib.Path) -> tuple[int, int] | None:
  try:
    found = path.stat()
  except FileNotFoundError:
    return None
  return found.st_dev, found.st_ino


def _lock(handle: int, path: pathlib.Path) -> None:
  if fcntl is None:
    raise OSError(errno.ENOSYS, "no locks", str(path))
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except (BlockingIOError, PermissionError):
    holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
    raise LockedError(
      f"{path.parent} is in use by {holder}; wait until it ends, stop it, or choose another folder"
    ) from None
  os.ftruncate(handle, 0)
  os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def is_locked(handle: BinaryIO) -> bool:
  """Whether another process has locked this open file against readers, as HDF5 locks what it writes."""
  if fcntl is None:
    return False
  try:
    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:
    return False
  fcntl.flock(handle, fcntl.LOCK_UN)
  return False
