"""What a GPU that nobody has seen before makes of the hot paths: `make device-check`, or `device_check.py FOLDER`.

Numbers of every path are compared with those that a CPU had (tests/data/device_check.json), in single and in double
precision; then rates are measured against the number of configurations at once. Programs compile side by side on the host's
cores, and what is not done in time is named and left out. OUT/device_check-TIME.json is written after every line.
Ends with status 1 where a number is wrong or not there in time, or a program was refused.

  --minutes=4   for all of it; compilation takes most.
  --words=hmc,draw   paths and rates whose name has one of these.
  --small   small numbers, for a CPU.
  --store   writes the CPU's numbers instead.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hot_paths
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd import domains, presets
from flowqcd.flows import conv
from flowqcd.io import files
from flowqcd.lattice import group, sites
from flowqcd.mcmc import heatbath, hmc
from flowqcd.models import priors
from flowqcd.runs import trajectories
from flowqcd.theory import determinant, dirac, gauge

STORED = pathlib.Path(__file__).parent / "data" / "device_check.json"
TOLERANCE = {"single": 1e-3, "double": 1e-7}
CHAOTIC = {"heat bath": 300.0, "link flow": 300.0}
"""Times the tolerance: sweeps multiply rounding by ten thousand."""
PRODUCT = 216  # Operations of a 3x3 product.
WILSON = 1368  # Operations of 1 - kappa H at a site.


def digest(tree: Any) -> list[list[float]]:
  """Of each array its norm, and its product with cos 0, cos 1, cos 2, ...; enough to tell two of them apart."""
  found = []
  for leaf in jax.tree.leaves(tree):
    x = np.ravel(np.asarray(leaf)).astype(complex).view(float)
    ramp = np.cos(np.arange(x.size))
    found.append([float(np.linalg.norm(x)), float(x @ ramp / np.linalg.norm(ramp))])
  return found


def deviation(found: list[list[float]], stored: list[list[float]]) -> float:
  """The largest difference of two digests, relative to norms; infinite where arrays are missing or not finite."""
  if np.shape(found) != np.shape(stored) or not np.isfinite(found).all():
    return float("inf")
  a, b = np.asarray(found), np.asarray(stored)
  return float(np.max(np.abs(a - b) / np.maximum(b[:, :1], 1e-3))) if a.size else float("inf")


class Rate(NamedTuple):
  """A function of `batch` items at once; operations and bytes that each item needs, where they are known."""

  name: str
  batch: int
  make: Callable[[int], tuple[Callable, tuple]]
  operations: float = 0.0
  traffic: float = 0.0
  unit: str = "items/s"


def _links(batch: int, extent: int = 4) -> jax.Array:
  keys = jax.random.split(jax.random.key(1), batch)
  return jax.vmap(priors.haar(3, (extent,) * 4, jnp.dtype("complex64")).sample)(keys)


def _over(path: str) -> Callable[[int], tuple[Callable, tuple]]:
  """A hot path of many configurations: all arguments but parameters get one for each."""

  def make(batch: int) -> tuple[Callable, tuple]:
    function, arguments = hot_paths.PATHS[path]("single")
    is_item = [isinstance(x, jax.Array) for x in arguments]
    many = tuple(jnp.broadcast_to(x, (batch, *x.shape)) if each else x for x, each in zip(arguments, is_item))
    if many[-1].ndim == 2 and many[-1].dtype == jnp.uint32:
      many = (*many[:-1], jax.random.key_data(jax.random.split(jax.random.key(2), batch)))
    return jax.vmap(function, [0 if each else None for each in is_item]), many

  return make


def _gradient(path: str) -> Callable[[int], tuple[Callable, tuple]]:
  """The gradient of a training step of two layers, of the summed loss of `batch` configurations."""

  def make(batch: int) -> tuple[Callable, tuple]:
    function, (params, _, *rest) = hot_paths.PATHS[path]("single")
    return function, (params, jax.random.key_data(jax.random.split(jax.random.key(2), batch)), *rest)

  return make


def _chain(kernel) -> Callable[[int], tuple[Callable, tuple]]:
  def make(batch: int) -> tuple[Callable, tuple]:
    keys = jax.random.key_data(jax.random.split(jax.random.key(2), batch))
    return jax.vmap(lambda u, key: kernel.step(key, hmc.State(u)).state.u), (_links(batch), keys)

  return make


def _products(batch: int) -> tuple[Callable, tuple]:
  def six(a: jax.Array) -> jax.Array:
    b = a
    for _ in range(6):
      b = group.mul(b, a)
    return b

  return six, (group.haar(jax.random.key(0), (3, 3, batch), jnp.dtype("complex64")),)


def _hop(extent: int) -> Callable[[int], tuple[Callable, tuple]]:
  def make(batch: int) -> tuple[Callable, tuple]:
    hops = jax.jit(lambda u: dirac.hopping_links(u, None))(_links(1, extent)[0])
    psi = jax.random.normal(jax.random.key(2), (batch, 4, 3, extent**4), jnp.complex64)
    shift = lambda x, mu, sign: sites.shift(x, (extent,) * 4, mu, sign)
    return jax.vmap(lambda hops, psi: psi - 0.1 * dirac.hop(hops, psi, shift), (None, 0)), (hops, psi)

  return make


def _log_det(dtype: str) -> Callable[[int], tuple[Callable, tuple]]:
  return lambda batch: (jax.vmap(lambda u: determinant.log_det(u, 0.1)), (_links(batch).astype(dtype),))


def _convolutions(batch: int) -> tuple[Callable, tuple]:
  net = conv.make(conv.Config(), 12, 49, hot_paths.LATTICE)
  params = jax.tree.map(lambda x: x.astype(jnp.float32), net.init(jax.random.key(0)))
  x = jax.random.normal(jax.random.key(1), (batch, 12, 256), jnp.float32)
  loss = lambda params, x: jnp.sum(jax.vmap(net.apply, (None, 0))(params, x) ** 2)
  return jax.grad(loss, (0, 1)), (params, x)


def rates(small: bool) -> list[Rate]:
  """All of them, the most telling first."""
  paper = presets.PRESETS["paper"]
  sizes = lambda *full: full[:1] if small else full
  force = lambda batch: (jax.vmap(lambda u: gauge.wilson_force(u, 1.0)), (_links(batch),))
  large = lambda batch: (jax.vmap(lambda u: gauge.wilson_force(u, 1.0)), (_links(batch, 16),))
  quarks = trajectories.kernel(paper.theory, paper.hmc, "single")
  pure = hmc.make(gauge.action(5.7))
  net = conv.make(conv.Config(), 12, 49, hot_paths.LATTICE)
  volume, big = 256, 16**4
  found = [
    *[Rate("hopping draw", n, _over("hopping draw"), unit="draws/s") for n in sizes(16, 256, 2048)],
    *[Rate("trivializing sample", n, _over("trivializing sample"), unit="samples/s") for n in sizes(4, 64, 512)],
    *[Rate("hmc with quarks", n, _chain(quarks), unit="trajectories/s") for n in sizes(2, 32, 256, 1024)],
    *[Rate("log det, single", n, _log_det("complex64"), 8 / 3 * 1536**3, unit="LU/s") for n in sizes(1, 12, 64)],
    *[Rate("log det, double", n, _log_det("complex128"), 8 / 3 * 1536**3, unit="LU/s") for n in sizes(1, 12)],
    *[Rate("spectral gradient, 2 layers", n, _gradient("spectral gradient")) for n in sizes(2, 64, 512)],
    *[Rate("PTCN gradient, 2 layers", n, _gradient("conditional gradient")) for n in sizes(2, 64)],
    *[Rate("gauge force 4^4", n, force, 13 * PRODUCT * 4 * volume, 2 * 288 * volume) for n in sizes(8, 256, 4096)],
    *[Rate("heat bath and over-relaxation", n, _chain(heatbath.make(5.7, 1)), unit="sweeps/s") for n in sizes(4, 512)],
    *[Rate("hmc, pure gauge", n, _chain(pure), unit="trajectories/s") for n in sizes(4, 512)],
    *[Rate("convolutions, gradient", n, _convolutions, 3 * net.operations) for n in sizes(8, 512)],
    Rate("colour products", 4096 if small else 2**22, _products, 6 * PRODUCT, 144),
  ]
  if not small:
    found += [
      Rate("gauge force 16^4", 8, large, 13 * PRODUCT * 4 * big, 2 * 288 * big),
      Rate("Wilson hop 16^4", 12, _hop(16), WILSON * big, 2 * 96 * big),
    ]
  return found


class Roof(NamedTuple):
  """What the device reaches: operations of a matrix product in full single and double precision, bytes of a sum."""

  single: float
  double: float
  bandwidth: float


def seconds(compiled: Callable, arguments: tuple, least: float) -> float:
  """Of one call, the fastest of those that fit in so many seconds, at least three."""
  jax.block_until_ready(compiled(*arguments))
  clock: list[float] = []
  while len(clock) < 3 or sum(clock) < least:
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    clock.append(time.perf_counter() - start)
  return min(clock)


def roof(small: bool, least: float) -> Roof:
  """Measured."""
  n, size = (256, 2**18) if small else (8192, 2**28)
  product = jax.jit(lambda x: jnp.matmul(x, x, precision=lax.Precision.HIGHEST))
  flops = [2 * n**3 / seconds(product, (jnp.ones((n, n), t),), least) for t in ("float32", "float64")]
  x = jnp.ones(size, jnp.float32)
  return Roof(flops[0], flops[1], 3 * x.nbytes / seconds(jax.jit(jnp.add), (x, x + 1), least))


def versions() -> dict[str, Any]:
  """Of what is installed, and what devices there are."""
  device = jax.devices()[0]
  names = ("jax", "jaxlib", "numpy", "flowqcd")
  found: dict[str, Any] = {name: importlib.metadata.version(name) for name in names}
  return found | {
    "python": sys.version.split()[0],
    "backend": jax.default_backend(),
    "device": device.device_kind,
    "devices": jax.device_count(),
    "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
    "driver": str(getattr(device.client, "platform_version", "")),
  }


class Table:
  """Lines on stdout, and the same as JSON, written anew after each."""

  def __init__(self, folder: pathlib.Path) -> None:
    """An empty one, for a file of its own in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    self.path = folder / time.strftime("device_check-%Y%m%d-%H%M%S.json")
    self.content: dict[str, Any] = {"versions": versions(), "numbers": [], "rates": []}
    for name, value in self.content["versions"].items():
      print(f"{name:14} {value}", flush=True)

  def add(self, part: str, row: dict[str, Any], line: str) -> None:
    """One more."""
    self.content[part].append(row)
    self.content["peak_bytes"] = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    self.write()
    print(line, flush=True)

  def write(self) -> None:
    """All there is."""
    with files.atomic(self.path, overwrite=True) as file:
      file.write(json.dumps(self.content, indent=1).encode())


def compiled_in_turn(
  tasks: dict[Any, Callable[[], tuple[Callable, tuple]]], end: float
) -> Iterator[tuple[Any, Any, tuple, float]]:
  """(name, compiled or an error, arguments, seconds that it took), all at once, as they get ready, until `end`."""

  def one(name: Any) -> tuple[Any, Any, tuple, float]:
    clock = time.monotonic()
    try:
      function, arguments = tasks[name]()
      return name, jax.jit(function).lower(*arguments).compile(), arguments, time.monotonic() - clock
    except Exception as error:  # Whatever a compiler says is what this is for.
      return name, error, (), time.monotonic() - clock

  pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(2, (os.cpu_count() or 2) - 1))
  waiting = {pool.submit(one, name) for name in tasks}
  while waiting and time.monotonic() < end:
    done, waiting = concurrent.futures.wait(
      waiting, max(0.0, end - time.monotonic()), concurrent.futures.FIRST_COMPLETED
    )
    for each in done:
      yield each.result()
  pool.shutdown(wait=False, cancel_futures=True)


def numbers(table: Table, words: list[str], end: float) -> bool:
  """Whether all paths have the CPU's numbers."""
  stored, fine = json.loads(STORED.read_text()), True
  names = [(name, p) for name in hot_paths.PATHS for p in TOLERANCE if not words or any(w in name for w in words)]
  tasks = {(name, p): lambda name=name, p=p: hot_paths.PATHS[name](p) for name, p in names}
  print(f"\n{'path':32} {'precision':>9} {'compile s':>9} {'deviation':>10}")
  left = dict.fromkeys(tasks)
  for (name, precision), compiled, arguments, spent in compiled_in_turn(tasks, end):
    left.pop((name, precision))
    row: dict[str, Any] = {"path": name, "precision": precision, "compile_seconds": spent}
    try:
      if isinstance(compiled, Exception):
        raise compiled
      off = deviation(digest(compiled(*arguments)), stored[name][precision])
      good = off < TOLERANCE[precision] * CHAOTIC.get(name, 1)
      row |= {"deviation": off, "good": good}
      text = f"{off:10.1e}{'' if good else '  WRONG'}"
    except Exception as error:
      good, row["error"] = False, str(error)[:1000]
      text = f"refused: {(str(error).splitlines() or [type(error).__name__])[0][:120]}"
    fine &= good
    table.add("numbers", row, f"{name:32} {precision:>9} {spent:9.1f} {text}")
  for name, precision in left:
    fine = False
    table.add("numbers", {"path": name, "precision": precision, "late": True}, f"{name:32} {precision:>9} not in time")
  return fine


def speeds(table: Table, words: list[str], small: bool, end: float) -> bool:
  """Whether all rates could be measured; the fraction of the roof where operations or bytes are known."""
  least, fine = (0.02 if small else 0.3), True
  top = roof(small, least)
  table.content["roof"] = top._asdict()
  print(f"\nroof: {top.single:.3g} and {top.double:.3g} flop/s, single and double; {top.bandwidth:.3g} B/s")
  print(f"{'rate':32} {'at once':>8} {'compile s':>9} {'a second':>10} {'':16} {'of flops':>8} {'of bytes':>8}")
  wanted = {(r.name, r.batch): r for r in rates(small) if not words or any(w in r.name for w in words)}
  tasks = {name: lambda r=r: r.make(r.batch) for name, r in wanted.items()}
  left = dict.fromkeys(tasks)
  for name, compiled, arguments, spent in compiled_in_turn(tasks, end):
    left.pop(name)
    rate, row = wanted[name], {"rate": name[0], "batch": name[1], "compile_seconds": spent}
    try:
      if isinstance(compiled, Exception):
        raise compiled
      per_second = rate.batch / seconds(compiled, arguments, least)
      of_flops = rate.operations * per_second / (top.double if "double" in rate.name else top.single)
      of_bytes = rate.traffic * per_second / top.bandwidth
      row |= {"per_second": per_second, "unit": rate.unit, "of_flops": of_flops, "of_bytes": of_bytes}
      percent = lambda x: f"{x:8.1%}" if x else f"{'':8}"
      text = f"{per_second:10.4g} {rate.unit:16} {percent(of_flops)} {percent(of_bytes)}"
    except Exception as error:
      fine, row["error"] = False, str(error)[:1000]
      text = f"refused: {(str(error).splitlines() or [type(error).__name__])[0][:120]}"
    table.add("rates", row, f"{name[0]:32} {name[1]:8} {spent:9.1f} {text}")
  for name in left:
    table.add("rates", {"rate": name[0], "batch": name[1], "late": True}, f"{name[0]:32} {name[1]:8} not in time")
  return fine


def split(table: Table) -> bool:
  """Whether one lattice over all devices has the numbers of one, where there are several."""
  count = jax.device_count()
  if count == 1:
    return True
  function, (u, key) = hot_paths.PATHS["hmc"]("double")
  time_devices = max(n for n in (4, 2, 1) if count % n == 0)
  alone = digest(jax.jit(function)(u, key))
  with jax.set_mesh(domains.mesh(time_devices)):
    off = deviation(digest(jax.jit(function)(domains.place(u), key)), alone)
  good = off < TOLERANCE["double"]
  row = {"path": "hmc, split", "precision": "double", "devices": time_devices, "deviation": off, "good": good}
  table.add(
    "numbers",
    row,
    f"{f'hmc over {time_devices} devices':32} {'double':>9} {'':9} {off:10.1e}{'' if good else '  WRONG'}",
  )
  return good


def store(words: list[str]) -> None:
  """Write this machine's numbers as those to compare with."""
  kept = json.loads(STORED.read_text()) if STORED.exists() else {}
  for name, path in hot_paths.PATHS.items():
    if not words or any(word in name for word in words):
      kept[name] = {}
      for precision in TOLERANCE:
        function, arguments = path(precision)
        kept[name][precision] = digest(jax.jit(function)(*arguments))
        print(name, precision, flush=True)
  STORED.write_text(json.dumps(kept, indent=1) + "\n")


def main(words: list[str] | None = None) -> int:
  """The status to end with."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("out", nargs="?", default="runs/device_check")
  parser.add_argument("--minutes", type=float, default=4.0)
  parser.add_argument("--words", default="")
  parser.add_argument("--small", action="store_true")
  parser.add_argument("--store", action="store_true")
  given = parser.parse_args(words)
  names = [word for word in given.words.split(",") if word]
  jax.config.update("jax_enable_x64", True)
  if given.store:
    store(names)
    return 0
  known = [*hot_paths.PATHS, *(rate.name for rate in rates(given.small))]
  for word in names:
    if not any(word in name for name in known):
      parser.error(f"no path or rate has '{word}' in its name; there are {', '.join(dict.fromkeys(known))}")
  start = time.monotonic()
  table = Table(pathlib.Path(given.out))
  # Rates have half of the time, and what numbers left of theirs.
  fine = numbers(table, names, start + 30 * given.minutes)
  fine &= split(table)
  fine &= speeds(table, names, given.small, start + 60 * given.minutes - 10)
  print(f"\n{time.monotonic() - start:.0f} s; {table.path}")
  return 0 if fine else 1


if __name__ == "__main__":
  status = main()
  sys.stdout.flush()
  os._exit(status)  # Compilers that are still at work do not stop for an exit.
