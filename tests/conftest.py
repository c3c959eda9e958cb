"""Four CPU devices and double precision for every test."""

import gc
import os

import pytest

os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4").strip()

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


@pytest.fixture(autouse=True, scope="module")
def _release_programs():
  """Drop a module's compiled programs: they hold memory maps, of which Linux allows a process 65,530."""
  yield
  jax.clear_caches()
  gc.collect()
