"""Two processes at one folder: the second writer is refused in one line, readers come and go, kills leave no lock."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from flowqcd.io import ensembles, files, locks

_HOLDER = """
import sys, time, numpy as np
from flowqcd.io import ensembles
store = ensembles.Ensemble.open_or_create(sys.argv[1], {"a": 1})
store.append({"x": np.arange(3.0)})
print("held", flush=True)
sys.stdin.readline()
store.append({"x": np.arange(3.0, 5.0)})
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, str(tmp_path / "e")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.wait()


def _append(store, start):
  store.append({"x": np.arange(start, start + 2.0)})


def test_a_second_writer_is_refused_and_told_by_whom(tmp_path, holder):
  store = ensembles.Ensemble.open(tmp_path / "e", {"a": 1})
  with pytest.raises(
    locks.LockedError, match=rf"{tmp_path}/e is in use by process {holder.pid} on \S+; wait"
  ) as refused:
    _append(store, 3)
  assert isinstance(refused.value, files.StoreError) and "\n" not in str(refused.value)
  with pytest.raises(locks.LockedError):
    store.repair()
  np.testing.assert_array_equal(store.read("x"), np.arange(3.0))
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  _append(store, 3)  # The kernel has dropped the lock.
  np.testing.assert_array_equal(store.read("x"), np.arange(5.0))
  store.close()


def test_looking_does_not_disturb_a_writer(tmp_path, holder):
  mid_write = tmp_path / "e" / f".part-000001.h5.{holder.pid}-0.tmp"
  mid_write.write_text("half")
  before = sorted(p.name for p in (tmp_path / "e").iterdir())
  store = ensembles.Ensemble.open(tmp_path / "e", {"a": 1})
  assert len(store) == 3 and store.states() == {"part-000000.h5": "ok"}
  assert sorted(p.name for p in (tmp_path / "e").iterdir()) == before
  holder.stdin.write("\n")
  holder.stdin.flush()
  assert holder.stdout.readline() == "done\n"
  np.testing.assert_array_equal(store.read("x"), np.arange(5.0))


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path, monkeypatch):
  store = ensembles.Ensemble.create(tmp_path / "e", {})
  _append(store, 0)
  store.close()
  (tmp_path / "e" / ".part-000001.h5.1.tmp").write_text("half")

  def refuse(*args, **kwargs):
    raise OSError(errno.EROFS, "Read-only file system")

  for name in ("unlink", "mkdir", "link", "rename", "replace"):
    monkeypatch.setattr(os, name, refuse)
  unwritable = lambda path, mode="r", *args, **kwargs: (
    refuse() if mode[0] in "wax" else real_open(path, mode, *args, **kwargs)
  )
  real_open = open
  monkeypatch.setattr("builtins.open", unwritable)
  found = ensembles.Ensemble.open(tmp_path / "e", {})
  np.testing.assert_array_equal(found.read("x"), np.arange(2.0))


def test_one_process_holds_as_often_as_it_likes(tmp_path):
  first, second = locks.hold(tmp_path), locks.hold(tmp_path)
  first.release()
  first.release()  # Once more does nothing.
  take = [sys.executable, "-c", "import sys; from flowqcd.io import locks; locks.hold(sys.argv[1])", str(tmp_path)]
  refused = subprocess.run(take, capture_output=True, text=True)
  assert f"in use by process {os.getpid()}" in refused.stderr.splitlines()[-1]
  second.release()
  assert subprocess.run(take, capture_output=True).returncode == 0


def test_a_folder_made_anew_is_held_anew(tmp_path):
  (tmp_path / "a").mkdir()
  locks.hold(tmp_path / "a")
  (tmp_path / "a").rename(tmp_path / "b")
  (tmp_path / "a").mkdir()
  locks.hold(tmp_path / "a")
  assert (tmp_path / "a" / files.LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_only_the_first_to_hold_removes_what_kills_left(tmp_path):
  stale = tmp_path / ".part-000000.h5.1.tmp"
  stale.write_text("half")
  held = locks.hold(tmp_path)
  assert not stale.exists()
  stale.write_text("of a thread that is writing")
  locks.hold(tmp_path)
  assert stale.exists()
  held.release()


def test_without_locks_links_keep_what_another_has_written(tmp_path, monkeypatch):
  def none(*args):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(locks.fcntl, "flock", none)
  (tmp_path / "e").mkdir()
  stale = tmp_path / "e" / ".part-000000.h5.1.tmp"
  stale.write_text("half")
  with pytest.warns(UserWarning, match="no locks"):
    store = ensembles.Ensemble.create(tmp_path / "e", {})
  assert stale.exists()  # It may be another's, at work.
  with pytest.raises(FileExistsError, match="part-000000.h5 has been written by another process"):
    with files.atomic(store._part(0)) as handle:
      handle.write(b"late")
      _append(store, 0)
  np.testing.assert_array_equal(store.read("x"), np.arange(2.0))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_links_a_name_is_reserved(tmp_path, monkeypatch, code):
  def none(*args):
    raise OSError(code, "no links")

  monkeypatch.setattr(os, "link", none)
  with files.atomic(tmp_path / "a") as handle:
    handle.write(b"mine")
  with (
    pytest.raises(FileExistsError, match="by another process meanwhile; it is kept"),
    files.atomic(tmp_path / "b") as handle,
  ):
    handle.write(b"late")
    (tmp_path / "b").write_bytes(b"theirs")
  assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"mine", "b": b"theirs"}
