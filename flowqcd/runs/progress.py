"""Lines for the person who runs this: how far a stage is, and what it has found."""

from __future__ import annotations

import sys
import time

from flowqcd import hosts
from flowqcd.runs import stopping


class Progress:
  """One line on stderr with done/total, rate and time left, rewritten in a terminal and repeated sparsely in a log."""

  def __init__(self, label: str, total: int, done: int = 0) -> None:
    self._label, self._total, self._first = label, total, done
    self._start, self._last = time.monotonic(), 0.0
    self._terminal = sys.stderr.isatty()

  def update(self, done: int, note: str = "", may_stop: bool = True) -> None:
    """Show that `done` of the total are finished; note is appended. Raises Stopped where a signal has come meanwhile.

    So it is called once what is done is stored. may_stop: False where the caller asks for signals by itself.
    """
    if may_stop:
      stopping.check()
    now = time.monotonic()
    if not hosts.is_first_process():
      return
    if done < self._total and now - self._last < (0.5 if self._terminal else 10.0):
      return
    self._last = now
    rate = (done - self._first) / max(now - self._start, 1e-9)
    left = (self._total - done) / rate if rate > 0 else float("nan")
    line = f"{self._label}: {done}/{self._total}  {rate:.2f}/s  {_clock(left)} left  {note}".rstrip()
    end = "\n" if done >= self._total or not self._terminal else ""
    sys.stderr.write(("\r\x1b[K" if self._terminal else "") + line + end)
    sys.stderr.flush()


def _clock(seconds: float) -> str:
  if seconds != seconds:
    return "?"
  minutes, seconds = divmod(int(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def say(text: str) -> None:
  """A line for the person who runs this, from the first process only."""
  if not hosts.is_first_process():
    return
  sys.stderr.write(text + "\n")
  sys.stderr.flush()


def show(text: str) -> None:
  """A line of what was asked for, on stdout."""
  sys.stdout.write(text + "\n")
  sys.stdout.flush()
