"""Forward mode through whole models, against reverse mode and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import initial, links, normal

from flowqcd.flows import conv, residual, trivializing
from flowqcd.lattice import exponential, group, sites
from flowqcd.models import marginal, priors

pytestmark = pytest.mark.slow
STEP = 1e-4


def _trivializing(nc):
  flow = trivializing.make(trivializing.Config(steps=2, degree=1), trivializing.pure_gauge(2.0, 2), nc, (3, 4))
  return flow, initial(flow, 0.7), links(nc, (3, 4))


def _residual(nc):
  config = residual.Config(sweeps=1, networks=True, net=conv.Config(hidden=(4,), gain=1.0))
  flow = residual.make(config, 2.0, nc, (4, 4))
  return flow, initial(flow, 0.2), links(nc, (4, 4))


def _moved(x, t, seed):
  """The tree x + t times normal numbers."""
  leaves, structure = jax.tree.flatten(x)
  return structure.unflatten([leaf + t * normal(leaf.shape, leaf.dtype, seed + i) for i, leaf in enumerate(leaves)])


def _turned(u, t):
  """e^{tX} U, X normal in the algebra: a tangent of links stays on the group."""
  v, lattice = sites.flatten(u), sites.extents(u)
  return sites.unflatten(group.mul(exponential.exp(t * group.project(normal(v.shape, v.dtype, 20))), v), lattice)


@pytest.mark.parametrize("made", [_trivializing, _residual])
@pytest.mark.parametrize("nc", [2, 3])
def test_sample_and_log_q(made, nc):
  """<w, J v> by jvp is <J^T w, v> by reverse mode. J: of links and log q from the prior's links and parameters, and of
  log q from links and parameters."""
  flow, params, z = made(nc)
  model = marginal.make(priors.haar(nc, z.shape[3:], z.dtype), flow)
  w = normal(z.shape, z.dtype, 30)

  def weighted(t):
    there, links_there = _moved(params, t, 5), _turned(z, t)
    u, logdet = flow.forward(there, links_there)
    return jnp.stack([jnp.sum(w * u).real - 0.7 * logdet, model.log_prob(there, links_there)])

  @jax.jit
  def every(t):
    _, back = jax.vjp(weighted, t)
    return weighted(t), jax.jvp(weighted, (t,), (1.0,))[1], jax.vmap(lambda row: back(row)[0])(jnp.eye(2))

  (low, _, _), (_, forward, reverse), (high, _, _) = (every(t) for t in (-STEP, 0.0, STEP))
  assert np.abs(forward).min() > 0.1
  np.testing.assert_allclose(forward, reverse, rtol=1e-10)
  np.testing.assert_allclose(forward, (high - low) / (2 * STEP), rtol=1e-6)
