"""`kernel`: a fixture that compiles, times and counts a function; a table of all of them at the end (make bench)."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
# One core, as the binaries use them, where every core is a device of its own: threads that share a kernel this small wait
# for each other half of the time. Before the first use of JAX, which counts cores once.
if CORES:
  os.sched_setaffinity(0, {min(CORES)})

if "xla_backend_optimization_level=0" in os.environ["XLA_FLAGS"]:
  raise pytest.UsageError("programs are compiled as for tests, without optimisation; run benchmarks by make bench")

jax.config.update("jax_enable_x64", True)
# What was compiled in an earlier run would look as if it cost nothing.
jax.config.update("jax_enable_compilation_cache", False)

_ROWS = pytest.StashKey[list]()
_SECONDS = 2.0
"""Time spent on one kernel."""


class Target(NamedTuple):
  """`quantity` is a column of the table; at least or at most `value`."""

  quantity: str
  value: float

  def met(self, found: float) -> bool:
    """Rates are to be above, times below."""
    return found >= self.value if self.quantity.endswith("/s") else found <= self.value


class Roof(NamedTuple):
  """What this machine reaches now: flops of a real matrix product in single and double, bytes of a sum of two arrays."""

  single: float
  double: float
  bandwidth: float


class Timing(NamedTuple):
  """Of many calls: wall seconds of the fastest, and mean CPU seconds (the clock counts other threads in ticks only)."""

  wall: float
  cpu: float


def _calls(function: Callable[[], Any], clock: list[Timing]) -> Callable[[], Any]:
  def call() -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function())
    clock.append(Timing(time.perf_counter() - wall, time.process_time() - cpu))
    return result

  return call


def together(clock: list[Timing]) -> Timing:
  """Of single calls."""
  return Timing(min(t.wall for t in clock), sum(t.cpu for t in clock) / len(clock))


def timed(function: Callable[..., Any], *args: Any, seconds: float = 0.5) -> float:
  """Wall seconds of the fastest call of a jitted function."""
  compiled, clock = jax.jit(function).lower(*args).compile(), []
  call = _calls(lambda: compiled(*args), clock)
  end = time.monotonic() + seconds
  while time.monotonic() < end or len(clock) < 3:
    call()
  return together(clock[1:]).wall


@pytest.fixture(scope="session")
def roof() -> Roof:
  n = 1024
  product = lambda x: x @ x
  flops = {t: 2 * n**3 / timed(product, jnp.ones((n, n), t)) for t in ("float32", "float64")}
  x = jnp.ones(2**25, jnp.float32)
  return Roof(flops["float32"], flops["float64"], 3 * x.nbytes / timed(jnp.add, x, x + 1))


@pytest.fixture
def kernel(request, benchmark, roof):
  """run(function, *args, ...) times jit(function) and adds a row.

  items: independent configurations in one call; times and operations are per item. operations: useful real ones; traffic:
  bytes that must move; double: which roof is meant; target: a Target or None. Returns the Timing per item.
  """

  def run(
    function: Callable[..., Any],
    *args: Any,
    items: int = 1,
    operations: float = 0.0,
    traffic: float = 0.0,
    double: bool = False,
    target: Target | None = None,
    note: str = "",
  ) -> Timing:
    start = time.monotonic()
    compiled = jax.jit(function).lower(*args).compile()
    compilation = time.monotonic() - start
    clock: list[Timing] = []
    call = _calls(lambda: compiled(*args), clock)
    call()
    rounds = int(min(max(_SECONDS / clock[0].wall, 3), 2000))
    clock.clear()
    benchmark.pedantic(call, rounds=rounds, warmup_rounds=1)
    best = together(clock)
    least = max(operations * items / (roof.double if double else roof.single), traffic * items / roof.bandwidth)
    memory = compiled.memory_analysis()
    row = {
      "kernel": request.node.name,
      "items": items,
      "wall ms": 1e3 * best.wall / items,
      "cpu ms": 1e3 * best.cpu / items,
      "GF/s": operations * items / best.wall / 1e9 or None,
      "GB/s": traffic * items / best.wall / 1e9 or None,
      "roof": least / best.wall or None,
      "compile s": compilation,
      "memory MiB": (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20 if memory else None,
    }
    _add(request, benchmark, row, target, note)
    return Timing(best.wall / items, best.cpu / items)

  return run


@pytest.fixture
def report(request, benchmark):
  """add(row, target, note): a row of one's own."""

  def add(row: dict[str, Any], target: Target | None = None, note: str = "") -> None:
    _add(request, benchmark, {"kernel": request.node.name} | row, target, note)

  return add


def _add(request, benchmark, row: dict[str, Any], target: Target | None, note: str) -> None:
  row["note"] = note
  if target:
    met = "met" if target.met(row[target.quantity]) else "MISSED"
    row["target"] = f"{'>=' if target.quantity.endswith('/s') else '<='} {target.value:g} {target.quantity}: {met}"
  benchmark.extra_info.update({k: v for k, v in row.items() if k != "kernel" and v not in (None, "")})
  request.config.stash.setdefault(_ROWS, []).append(row)


def pytest_benchmark_update_machine_info(config, machine_info):
  machine_info["jax"] = jax.__version__
  machine_info["device"] = jax.devices()[0].device_kind
  machine_info["cores"] = len(CORES)


_COLUMNS = ("items", "wall ms", "cpu ms", "value", "GF/s", "GB/s", "roof", "compile s", "memory MiB", "target", "note")


def pytest_terminal_summary(terminalreporter, config):
  rows = config.stash.get(_ROWS, [])
  if not rows:
    return
  write = terminalreporter.write_line
  write("\nper item; roof: of a matrix product or of memory, whichever is nearer, measured in this run")
  write("| kernel | " + " | ".join(_COLUMNS) + " |")
  write("|---" * (len(_COLUMNS) + 1) + "|")
  for row in rows:
    write(f"| {row['kernel']} | " + " | ".join(_cell(row.get(name)) for name in _COLUMNS) + " |")
  write(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


def _cell(value: Any) -> str:
  return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
