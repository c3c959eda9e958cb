"""The parallel-transport layer against the formula, and its derivative by hand against the formula's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import initial, links, normal

from flowqcd.flows import ptcn, transport
from flowqcd.lattice import sites, spin
from flowqcd.theory import dirac


def _formula(psi, weights, u, boundary):
  """sum_j W0 psi_j + sum_d W_d (1 -+ gamma) U psi_j(neighbour), with dense gamma matrices, on complex [J, Ns, Nc, V]."""
  lattice = sites.extents(u)
  nd = len(lattice)
  hops, unit = dirac.hopping_links(u, boundary), np.eye(spin.components(nd))
  result = jnp.einsum("ijv,jscv->iscv", weights[0], psi)
  for d in range(2 * nd):
    mu, sign = d // 2, 1 - 2 * (d % 2)
    arrived = jnp.einsum("abv,jsbv->jsav", hops[d], sites.shift(psi, lattice, mu, sign))
    projected = jnp.einsum("st,jtav->jsav", unit - sign * spin.gammas(nd)[mu], arrived)
    result = result + jnp.einsum("ijv,jscv->iscv", weights[1 + d], projected)
  return result


def _inputs(nc, lattice, into, out):
  u = links(nc, lattice)
  nd = len(lattice)
  volume = u[0, 0, 0].size
  psi = normal((into, spin.components(nd), nc, volume), u.dtype, 1)
  weights = normal((1 + 2 * nd, out, into, volume), seed=2)
  g = normal((out, *psi.shape[1:]), u.dtype, 3)
  return u, psi, weights, g, dirac.antiperiodic(nd)


def _layer(psi, weights, u, boundary):
  split = transport.split(dirac.hopping_links(u, boundary))
  return transport.join(transport.layer(transport.split(psi), weights, split, sites.extents(u)))


@pytest.mark.parametrize(
  "nc, lattice, into, out",
  [(1, (4, 6), 1, 3), (2, (4, 2), 3, 1), (3, (4, 4), 2, 2), (2, (2, 4, 2, 6), 3, 1), (3, (2, 2, 4, 2), 1, 3)],
)
def test_layer_and_its_gradients(nc, lattice, into, out):
  """Values, and derivatives by fields, weights and links, of Re <g, layer>."""
  u, psi, weights, g, boundary = _inputs(nc, lattice, into, out)

  def both(function):
    def loss(*x):
      value = function(*x, boundary)
      return jnp.vdot(g, value).real, value

    return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(psi, weights, u)

  (found, value), (wanted, formula) = both(_layer), both(_formula)
  np.testing.assert_allclose(value, formula, atol=1e-12)
  for a, b in zip(found, wanted):
    assert np.abs(b).max() > 0.1
    np.testing.assert_allclose(a, b, atol=1e-11)


def test_draws_of_one_configuration_and_single_precision():
  """Under vmap with shared weights and links; float32 stays float32 where JAX's switch says 64 bits."""
  u, psi, weights, g, boundary = _inputs(3, (4, 4), 2, 2)
  several = np.stack([psi, 2 * psi, psi.conj()])
  loss = lambda f: lambda weights: jnp.vdot(g, jnp.sum(jax.vmap(lambda x: f(x, weights, u, boundary))(several), 0)).real
  found, wanted = (jax.jit(jax.grad(loss(f)))(weights) for f in (_layer, _formula))
  np.testing.assert_allclose(found, wanted, atol=1e-11)
  low = psi.astype(np.complex64), weights.astype(np.float32), np.asarray(u).astype(np.complex64)
  single = jax.jit(_layer, static_argnums=3)(*low, boundary)
  assert single.dtype == jnp.complex64
  exact = jax.jit(_formula, static_argnums=3)(psi, weights, u, boundary)
  np.testing.assert_allclose(single, exact, atol=1e-4)


@pytest.mark.parametrize(
  "make, parities, nc, lattice, remat",
  [(ptcn.full, 1, 3, (4, 4), True), (ptcn.odd, 2, 1, (4, 4), False), (ptcn.full, 1, 2, (2, 2, 4, 2), False)],
)
def test_gradients_of_the_flow_in_both_directions(make, parities, nc, lattice, remat):
  """By parameters, links and fields, along a random direction, against a difference quotient."""
  config = ptcn.Config(layers=4, hops=3, copies=2, trunk=2, gain=0.7, bias=0.2, remat=remat)
  flow, u = make(config, nc, lattice), links(nc, lattice)
  shape = (spin.components(len(lattice)), nc, u[0, 0, 0].size // parities)
  point = initial(flow), u, normal(shape, u.dtype, 1)
  weight = normal((2, *shape), u.dtype, 2)

  def loss(params, u, z):
    at = flow.at(params, u)
    return jnp.vdot(weight[0], at.forward(z)).real + jnp.vdot(weight[1], at.inverse(z)).real + at.logdet

  seeds = iter(range(3, 1000))
  direction = jax.tree.map(lambda x: normal(x.shape, x.dtype, next(seeds)), point)
  gradient = jax.device_get(jax.jit(jax.grad(loss, (0, 1, 2)))(*point))
  moved = jax.jit(lambda e, part: loss(*jax.tree.map(lambda x, d: x + e * d, point, part)))
  h = 1e-4
  for i in range(3):
    alone = jax.tree.map(np.zeros_like, direction)
    part = tuple(d if j == i else a for j, (d, a) in enumerate(zip(direction, alone)))
    difference = (8 * (moved(h, part) - moved(-h, part)) - (moved(2 * h, part) - moved(-2 * h, part))) / (12 * h)
    # JAX's gradient by a complex x is conjugate to the direction of steepest ascent.
    slope = sum(np.sum(g * d).real for g, d in zip(jax.tree.leaves(gradient[i]), jax.tree.leaves(direction[i])))
    assert abs(difference) > 1e-3
    np.testing.assert_allclose(slope, difference, rtol=1e-7)
