"""Four CPU devices, double precision and programs that compile fast, for every test."""

import gc
import os
import pathlib

import programs
import pytest

os.environ["XLA_FLAGS"] = programs.xla_flags()
# Compiled programs are kept in the tree's own folder, those of the binaries too: most of the time of a first run is their
# compilation, and the next run reads them.
os.environ.setdefault("XDG_CACHE_HOME", str(pathlib.Path(__file__).parents[1] / ".cache"))

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "flowqcd" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(autouse=True, scope="module")
def _release_programs():
  """Drop a module's compiled programs: they hold memory maps, of which Linux allows a process 65,530."""
  yield
  jax.clear_caches()
  gc.collect()
