"""How many steps a chain takes, with a kernel that counts them."""

import dataclasses

import jax
import numpy as np
import pytest

from flowqcd import distributed, experiment, presets
from flowqcd.mcmc import hmc
from flowqcd.runs import session
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chains
from flowqcd.types import Kernel, KernelStep

_COUNTING = Kernel(lambda key, u: hmc.State(u), lambda key, state: KernelStep(hmc.State(state.u + 10), ()))
"""Elements of a Haar-random matrix are at most one, so that tens count the steps since."""


@pytest.mark.parametrize("thermalisation", [0, 7, 25, 40])
def test_every_step_is_taken_once(tmp_path, thermalisation):
  base = presets.PRESETS["smoke"]
  streams = HMC(streams=3, trajectories=160, thermalisation=thermalisation, thin=10)
  config = dataclasses.replace(base, hmc=streams, output=str(tmp_path / "run"))
  session.start(config.compilation)
  run = experiment.claim(config)
  fill = lambda: chains.fill(run, config.theory, "counted", _COUNTING, lambda info: {}, streams, salt=20)
  found = chains.series(fill(), "u").real
  counts = np.round(found / 10)
  expected = thermalisation + np.arange(10, 170, 10)
  np.testing.assert_array_equal(counts, np.broadcast_to(expected.reshape(1, 16, 1, 1, 1, 1, 1), counts.shape))
  assert chains.steps(fill(), "plaquette").shape == (3, 160)
  # A chain that lost its last part goes on from the one before, and not from the start.
  sorted((tmp_path / "run" / "counted").glob("*.h5"))[-1].unlink()
  np.testing.assert_array_equal(chains.series(fill(), "u").real, found)


@pytest.mark.parametrize("backend, lattice, wanted", [
  ("cpu", (4, 4), 8), ("cpu", (16, 16), 2), ("cpu", (4, 4, 4, 4), 2), ("cpu", (8, 8, 8, 8), 1), ("gpu", (8, 8, 8, 8), 8),
])  # fmt: skip
def test_streams_of_a_core_fit_its_cache(backend, lattice, wanted, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  assert chains._together(8 * distributed.places() - 3, int(np.prod(lattice))) == wanted
