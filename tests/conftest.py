"""Four CPU devices, double precision and programs that compile fast, for every test."""

import gc
import os

import programs
import pytest

os.environ["XLA_FLAGS"] = programs.xla_flags()

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


@pytest.fixture(autouse=True, scope="module")
def _release_programs():
  """Drop a module's compiled programs: they hold memory maps, of which Linux allows a process 65,530."""
  yield
  jax.clear_caches()
  gc.collect()
