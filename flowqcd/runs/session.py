"""What every run does first: devices, precision, the cache of compiled programs, and a clock of what starting took."""

from __future__ import annotations

import logging
import os
import pathlib
import time

import jax
import jax.numpy as jnp

from flowqcd import hosts
from flowqcd.types import Params


def start(compilation: str = "full", several_hosts: bool = False) -> None:
  """Prepare JAX; again as often as need be. On CPUs every core becomes a device.

  compilation: full, or quick: programs compile in two thirds of the time and run slower. Raises ValueError on several
  hosts unless the stage runs there and all have as many devices, and where JAX_PLATFORMS asks for devices that are not
  there.
  """
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  _add_xla_flag("--xla_force_host_platform_device_count", cores)
  if compilation == "quick":
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
  _require_devices()
  if jax.process_count() > 1 and not several_hosts:
    raise ValueError("this command runs in one process: leave --coordinator out")
  hosts.check_even(jax.devices())


def _add_xla_flag(name: str, value: int | str) -> None:
  """Set a flag of XLA's that the user has not set; they count until JAX makes its first array."""
  flags = os.environ.get("XLA_FLAGS", "")
  if name not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


_PLUGINS = {
  "cuda": "pip install 'flowqcd[cuda]'",
  "gpu": "pip install 'flowqcd[cuda]'",
  "tpu": "pip install 'jax[tpu]'",
}


def _require_devices() -> None:
  try:
    jax.local_devices()
  except (RuntimeError, AssertionError) as error:  # The latter, without a word, where JAX's plugin for CUDA is missing.
    wanted = _platforms()
    remedy = " or ".join(dict.fromkeys(_PLUGINS[name] for name in wanted.split(",") if name in _PLUGINS))
    raise ValueError(
      f"JAX_PLATFORMS = {wanted}, and JAX finds no such device{f' ({error})' if str(error) else ''}: "
      f"{f'install its plugin, {remedy}, or ' if remedy else ''}unset JAX_PLATFORMS to use what there is"
    ) from None


def _platforms() -> str:
  return os.environ.get("JAX_PLATFORMS", "none")


_compilations: list[tuple[float, float]] = []
"""Intervals of tracing, lowering and compiling."""
_imports: list[float] = []
"""CPU seconds of the process before the first `start`."""


def _watch_compilation() -> None:
  if _imports:
    return
  _imports.append(time.process_time())

  def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event.startswith("/jax/core/compile/"):
      now = time.monotonic()
      _compilations.append((now - duration_secs, now))

  jax.monitoring.register_event_duration_secs_listener(listen)


def startup_seconds() -> float:
  """Seconds that this process has spent on imports, traces and compilations, each counted once where they are nested."""
  total, end = sum(_imports), 0.0
  for first, last in sorted(_compilations):
    total += max(0.0, last - max(first, end))
    end = max(end, last)
  return total


def dtype(precision: str) -> jnp.dtype:
  """Complex dtype of single or double precision. Raises ValueError for double where the devices are TPUs."""
  if precision == "double" and jax.default_backend() == "tpu":
    # Their compiler ends the process where it meets a double-precision complex number.
    raise ValueError("TPUs have no complex numbers in double precision: set every precision to single")
  return jnp.dtype("complex64" if precision == "single" else "complex128")


def in_precision(params: Params, dtype: jnp.dtype) -> Params:
  """Parameters in the real precision that belongs to a complex dtype."""
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.finfo(dtype).dtype), params)
