"""How the tests' programs are compiled."""

import os
from importlib import metadata


def xla_flags() -> str:
  """Four CPU devices, and without optimisation, unless XLA_FLAGS says how many or which: the tests take a quarter of the
  time then."""
  given = os.environ.get("XLA_FLAGS", "")
  flags = [given]
  if "xla_force_host_platform_device_count" not in given:
    flags.append("--xla_force_host_platform_device_count=4")
  if "xla_backend_optimization_level" not in given:
    flags.append("--xla_backend_optimization_level=0")
    # Unknown flags end the process, and this one, for the older emitters of fusions, is XLA's own.
    if metadata.version("jax").startswith("0.10."):
      flags.append("--xla_cpu_use_fusion_emitters=false")
  return " ".join(flags).strip()
