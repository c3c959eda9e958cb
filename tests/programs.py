"""How the tests' programs are compiled."""

import functools
import math
import os
import re
from importlib import metadata

import pytest

slow = functools.partial(pytest.param, marks=pytest.mark.slow)
"""A case of parametrize that says the same again in another group or dimension: `make slow` runs it."""


_COLLECTIVE = re.compile(
  r"= (.*?) (all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter|collective-broadcast)(?:-start)?\("
)
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")


def collectives(text: str) -> list[tuple[str, int]]:
  """What devices exchange in a compiled program, from its text: kinds, and elements of the largest part of each."""
  found = []
  for line in text.splitlines():
    met = _COLLECTIVE.search(line)
    if met:
      sizes = [math.prod(map(int, filter(None, shape.split(",")))) for shape in _SHAPE.findall(met.group(1))]
      found.append((met.group(2), max(sizes)))
  return found


def xla_flags(devices: int = 4, given: str | None = None) -> str:
  """Four CPU devices, and without optimisation, unless the flags given say how many or which: the tests take a quarter of
  the time then. given: None for those of XLA_FLAGS."""
  given = os.environ.get("XLA_FLAGS", "") if given is None else given
  flags = [given]
  if "xla_force_host_platform_device_count" not in given:
    flags.append(f"--xla_force_host_platform_device_count={devices}")
  if "xla_backend_optimization_level" not in given:
    flags.append("--xla_backend_optimization_level=0")
    # Unknown flags end the process, and this one, for the older emitters of fusions, is XLA's own.
    if metadata.version("jax").startswith("0.10."):
      flags.append("--xla_cpu_use_fusion_emitters=false")
  return " ".join(flags).strip()
