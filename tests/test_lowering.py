"""Every hot path becomes a program for GPUs and TPUs; compiling and running it needs the device."""

import hot_paths
import jax
import pytest

PLATFORMS = ("cuda", "tpu")


@pytest.mark.parametrize(
  "name", [pytest.param(x, marks=[pytest.mark.slow] * (x in hot_paths.SLOW)) for x in hot_paths.PATHS]
)
def test_hot_paths_lower_for_accelerators(name):
  function, arguments = hot_paths.PATHS[name]("single")
  exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
  assert set(exported.platforms) == set(PLATFORMS)
  # A path that computes nothing would become a program too.
  assert exported.mlir_module().count("stablehlo.") > 100
