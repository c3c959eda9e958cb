"""How costs grow with the lattice and with the batch; docs/scaling.png is drawn from these (make bench)."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from benchmarks.bench_kernels import WILSON, links, spinors
from benchmarks.bench_sampling import BASE, starts, trajectories

from flowqcd.runs import marginals, session
from flowqcd.theory import dirac, gauge

EXTENTS = pytest.mark.parametrize("extent", [4, 6, 8, 12])
BATCHES = pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 32])


def theory(extent, flavours):
  return dataclasses.replace(BASE.theory, lattice=(extent,) * 4, num_flavours=flavours)


@EXTENTS
def test_gauge_force_volume(kernel, extent):
  kernel(lambda u: gauge.wilson_force(u, 1.0), links((extent,) * 4, 1)[0], operations=2808 * 4 * extent**4)


@EXTENTS
def test_schur_volume(kernel, extent):
  u, psi = links((extent,) * 4, 1)[0], spinors((4, 3, extent**4 // 2))
  kernel(lambda u, psi: dirac.normal(dirac.schur(u, 0.1)).apply(psi), u, psi, operations=2 * WILSON * extent**4)


@EXTENTS
@pytest.mark.parametrize("flavours", [0, 2])
def test_hmc_volume(kernel, extent, flavours):
  """A trajectory of one stream."""
  config = dataclasses.replace(BASE, theory=theory(extent, flavours))
  kernel(trajectories(config, 1, 1), starts(config, 1), jax.random.key(2))


@EXTENTS
def test_flow_volume(kernel, extent):
  """A sample of the trivializing flow."""
  config = dataclasses.replace(BASE, theory=theory(extent, 2), precision="single")
  model = marginals.model(config.links, config.theory, jnp.dtype("complex64"))
  params = session.in_precision(model.init(jax.random.key(0)), jnp.complex64)
  kernel(lambda key: model.sample(params, key), jax.random.key(1))


@BATCHES
def test_hmc_batch(kernel, batch):
  """Streams of N_f = 2."""
  kernel(trajectories(BASE, batch, 1), starts(BASE, batch), jax.random.key(2), items=batch)


@BATCHES
def test_flow_batch(kernel, batch):
  config = dataclasses.replace(BASE, precision="single")
  model = marginals.model(config.links, config.theory, jnp.dtype("complex64"))
  params = session.in_precision(model.init(jax.random.key(0)), jnp.complex64)
  kernel(jax.vmap(lambda key: model.sample(params, key)), jax.random.split(jax.random.key(1), batch), items=batch)
