"""Signals by which a cluster takes a machine back: finish what is in flight, store it, and end with a status of its own.

SIGTERM and SIGUSR1 are noticed after a training step and after a part of an ensemble. On several hosts a signal to one
of them stops all at the same place. A second signal ends a single process at once.
"""

from __future__ import annotations

import itertools
import os
import signal
import types

import jax
from jax.experimental import multihost_utils

from flowqcd import hosts

STATUS = 75
"""Exit status of a run that was stopped and will go on: EX_TEMPFAIL."""
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_received: list[str] = []


class Stopped(Exception):
  """A signal has asked this run to stop, and all that it had is stored."""


def listen() -> None:
  """Notice signals from now on; again as often as need be. For a process's main thread."""
  if jax.distributed.is_initialized():
    # SIGTERM is JAX's own there: it tells the other hosts.
    signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
  else:
    for number in _SIGNALS:
      signal.signal(number, _notice)


def _notice(number: int, frame: types.FrameType | None) -> None:
  _received.append(signal.Signals(number).name)
  for each in _SIGNALS:
    signal.signal(each, signal.SIG_DFL)


_asked = itertools.count(1)
"""Hosts stop together after the same question, of which all of them ask all."""


def requested() -> bool:
  """Whether to stop now. On several hosts all ask, and stop after the same question."""
  if jax.distributed.is_initialized():
    if jax.process_count() > 1 and hosts.is_alone():
      return False  # No other would ask here: there is another question soon.
    return multihost_utils.reached_preemption_sync_point(next(_asked))
  return bool(_received)


def check() -> None:
  """Raise Stopped where `requested`."""
  if requested():
    raise Stopped(f"stopped by {_received[0] if _received else 'a signal'}")
