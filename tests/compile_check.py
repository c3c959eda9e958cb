"""Every hot path compiled for an H100 and a TPU v5e, of which none need be there: `make compile-check`.

Lowering is tested in tests/test_lowering.py; this asks the compilers themselves, which refuse other things. For each path
it prints seconds of compilation, kernels that one call starts, and MiB of temporaries, and ends with status 1 where one was
refused. A while loop whose length the compiler does not know, such as a solver's, counts once, and of a conditional the
longest branch. `python tests/compile_check.py PLATFORM [WORD]`: cuda or tpu, and paths whose name has the word.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Sequence

import programs

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
  device_address_bits: 64
  name: "NVIDIA H100 80GB HBM3"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What the compiler asks of a GPU, in its own words: the published limits of an H100 with 80 GB."""

_FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota", "partition-id", "replica-id",
  "opt-barrier", "async-start", "async-done", "copy-done", "add-dependency",
}  # fmt: skip
"""Instructions that start no kernel."""
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (?:\(.*?\)|\S+) ([\w-]+)\(")
_CALLED = re.compile(
  r"(body|calls|to_apply|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%?[\w.-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\s*\{\s*"n":\s*"(\d+)"')
_INLINE = ("while", "conditional", "call", "async-start")


def kernels(text: str) -> int:
  """How many kernels a run of a compiled program starts, from its text."""
  bodies: dict[str, list[str]] = {}
  entry = current = ""
  for line in text.splitlines():
    header = re.match(r"^(ENTRY )?%?([\w.-]+) .*\{$", line)
    if header:
      current = header.group(2)
      bodies[current] = []
      entry = current if header.group(1) else entry
    elif current:
      bodies[current].append(line)

  def of_line(line: str) -> int:
    found = _INSTRUCTION.match(line)
    if not found:
      return 0
    opcode = found.group(1)
    if opcode not in _INLINE:
      return int(opcode not in _FREE)
    names = [name for _, group in _CALLED.findall(line) for name in re.findall(r"[\w.-]+", group)]
    longest = max((sum(map(of_line, bodies.get(name, ()))) for name in names), default=0)
    trips = _TRIPS.search(line)
    return longest * (int(trips.group(1)) if trips and opcode == "while" else 1)

  return sum(map(of_line, bodies[entry]))


SPLIT = {"16^4": (16,) * 4, "64 x 32^3": (64, 32, 32, 32)}
"""Lattices that are compiled over four devices too."""


def _devices(platform: str):
  """Four."""
  from jax.experimental import topologies

  if platform == "tpu":
    return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices
  return topologies.get_topology_desc("h100", platform="cuda", target_config=H100, topology="1x1x4").devices


def main(words: Sequence[str]) -> int:
  """The number of paths that were refused."""
  import os

  # The host itself has no accelerator; libtpu would ask the cloud's metadata for one, minute after minute.
  os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
  import jax
  from jax.sharding import SingleDeviceSharding

  jax.config.update("jax_enable_x64", True)
  import hot_paths

  platform, *names = words
  devices, refused = _devices(platform), 0
  print(f"{platform:24} {'compile s':>9} {'kernels':>8} {'MiB':>8}")
  for name, path in hot_paths.PATHS.items():
    if all(word in name for word in names):
      function, arguments = path("single")
      place = SingleDeviceSharding(devices[0])
      refused += not _compiled(name, function, arguments, lambda _, place=place: place, place)
  for name, lattice in SPLIT.items():
    name = f"hmc, {name} over four"
    if all(word in name for word in names):
      refused += not _split(name, lattice, devices)
  return refused


def _compiled(name, function, arguments, place, out=None) -> bool:
  """Whether a function compiled; a line about it. place: argument -> its sharding."""
  import jax

  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place(x)), arguments)
  clock = time.monotonic()
  try:
    compiled = jax.jit(function, **({"out_shardings": out} if out else {})).lower(*shapes).compile()
  except Exception as error:  # Whatever a compiler says is what this is for.
    print(f"{name:24} refused: {str(error).splitlines()[0][:200]}", flush=True)
    return False
  text, memory = compiled.as_text(), compiled.memory_analysis().temp_size_in_bytes / 2**20
  print(f"{name:24} {time.monotonic() - clock:9.1f} {kernels(text):8} {memory:8.1f}", flush=True)
  moved = Counter(kind for kind, _ in programs.collectives(text))
  if moved:
    print(f"{'':24} {', '.join(f'{n} {kind}' for kind, n in moved.items())}", flush=True)
  return moved.keys() <= {"collective-permute", "all-reduce"}


def _split(name, lattice, devices) -> bool:
  """The HMC of two flavours with each lattice over all of the devices; False too where whole fields are gathered."""
  import hot_paths
  import jax
  import numpy as np
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  from flowqcd import domains

  function, (_, key) = hot_paths.PATHS["hmc"]("single")
  axes = AxisType.Auto, AxisType.Auto
  mesh = Mesh(np.array(devices).reshape(1, len(devices)), (domains.ITEMS, domains.TIME), axis_types=axes)
  u = jax.ShapeDtypeStruct((4, 3, 3, *lattice), "complex64")
  in_time = PartitionSpec(None, None, None, domains.TIME)
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    return _compiled(name, function, (u, key), lambda x: NamedSharding(mesh, in_time if x is u else PartitionSpec()))


if __name__ == "__main__":
  sys.exit(1 if main(sys.argv[1:]) else 0)
