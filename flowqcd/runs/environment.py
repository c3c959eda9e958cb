"""What every binary does first: devices, precision, compilation cache, the run's folder, progress lines."""

from __future__ import annotations

import json
import logging
import os
import pathlib
import sys
import time

import jax
import jax.numpy as jnp

from flowqcd import distributed
from flowqcd.io import ensembles, files, locks, metrics
from flowqcd.runs import configuration
from flowqcd.runs.settings import Experiment

_OPERATIONAL = ("output", "measurement.bins")
"""Fields that do not change what a run computes and stores."""


def start(config: Experiment, several_hosts: bool = False) -> jnp.dtype:
  """Prepare JAX and return the complex working dtype. On CPUs every core becomes a device.

  Raises ValueError on several hosts unless the stage runs there.
  """
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  _add_xla_flag("--xla_force_host_platform_device_count", cores)
  if config.compilation == "quick":
    _add_xla_flag("--xla_backend_optimization_level", 0)
    # Unknown flags end the process, and this one is XLA's own; without optimisation these emitters only cost time.
    if (0, 10) <= jax.__version_info__ < (0, 11):
      _add_xla_flag("--xla_cpu_use_fusion_emitters", "false")
  # JAX reports every kind of accelerator that it did not find.
  logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
  _watch_compilation()
  jax.config.update("jax_enable_x64", True)
  cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "flowqcd" / "xla"
  jax.config.update("jax_compilation_cache_dir", str(cache))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  if jax.process_count() > 1 and not several_hosts:
    raise ValueError("only training runs on several hosts; run the other stages on one")
  return jnp.dtype("complex64" if config.precision == "single" else "complex128")


def _add_xla_flag(name: str, value: int | str) -> None:
  """Set a flag of XLA's that the user has not set; they count until JAX makes its first array."""
  flags = os.environ.get("XLA_FLAGS", "")
  if name not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


_compilations: list[tuple[float, float]] = []
"""Intervals of tracing, lowering and compiling."""
_imports: list[float] = []
"""CPU seconds of the process before the first `start`."""


def _watch_compilation() -> None:
  if _imports:
    return
  _imports.append(time.process_time())

  def listen(event: str, duration: float, **kwargs: object) -> None:
    if event.startswith("/jax/core/compile/"):
      now = time.monotonic()
      _compilations.append((now - duration, now))

  jax.monitoring.register_event_duration_secs_listener(listen)


def startup_seconds() -> float:
  """Seconds that this process has spent on imports, traces and compilations, each counted once where they are nested."""
  total, end = sum(_imports), 0.0
  for first, last in sorted(_compilations):
    total += max(0.0, last - max(first, end))
    end = max(end, last)
  return total


def claim(config: Experiment) -> pathlib.Path:
  """The run's folder, created if need be, and held by this process until it ends; again as often as need be.

  Fields that its configuration lacks, since they are newer, count as their defaults. Raises ValueError, naming the fields,
  where it holds another configuration, and LockedError where another process is at work there. On several hosts the first
  process alone holds it.
  """
  folder = pathlib.Path(config.output)
  if not distributed.is_first_process():
    return folder
  record = folder / "config.json"
  if not _is_claimed(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
  locks.hold(folder)
  # Looked at again: another process may have claimed it before it was held.
  if not _is_claimed(config, folder):
    metrics.write_json(record, provenance(config))
  return folder


def _is_claimed(config: Experiment, folder: pathlib.Path) -> bool:
  """Whether the folder is this configuration's already. Raises ValueError where it is something else's; writes nothing."""
  record, mine = folder / "config.json", provenance(config)
  if not record.exists() and files.is_vacant(folder):
    return False
  found = metrics.read_json(record) if record.exists() else {}
  if not mine.keys() & found.keys():
    raise ValueError(f"{folder} is not empty and not a run of this program; choose another --config.output")
  theirs = defaults() | found
  differing = sorted(k for k in mine.keys() | theirs.keys() if (k in mine, mine.get(k)) != (k in theirs, theirs.get(k)))
  if differing:
    shown = lambda k: f"{theirs.get(k)} there{'' if k in found else ' by default'}"
    what = ", ".join(f"{k}: {shown(k)}, {mine.get(k, 'no such field')} here" for k in differing[:4])
    raise ValueError(f"{folder} belongs to another configuration ({what}); choose another --config.output")
  return True


def provenance(config: Experiment) -> dict:
  """{field: value} of all that decides what a run computes, as JSON would give it back."""
  leaves = configuration.to_dict(config)
  return json.loads(json.dumps({k: v for k, v in leaves.items() if k not in _OPERATIONAL}))


def defaults() -> dict:
  """{field: value} that a run has which was made before the field."""
  return provenance(Experiment())


def store(config: Experiment, path: pathlib.Path) -> ensembles.Ensemble:
  """The configuration's ensemble at a path in a claimed folder, opened or created. Raises EnsembleError, naming keys."""
  return ensembles.Ensemble.open_or_create(path, provenance(config), defaults())


class Progress:
  """One line on stderr with done/total, rate and time left, rewritten in a terminal and repeated sparsely in a log."""

  def __init__(self, label: str, total: int, done: int = 0) -> None:
    self._label, self._total, self._first = label, total, done
    self._start, self._last = time.monotonic(), 0.0
    self._terminal = sys.stderr.isatty()

  def update(self, done: int, note: str = "") -> None:
    """Show that `done` of the total are finished; note is appended."""
    now = time.monotonic()
    if not distributed.is_first_process():
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
  if not distributed.is_first_process():
    return
  sys.stderr.write(text + "\n")
  sys.stderr.flush()


def show(text: str) -> None:
  """A line of what was asked for, on stdout."""
  sys.stdout.write(text + "\n")
  sys.stdout.flush()
