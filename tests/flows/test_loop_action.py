import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkers import laplacian
from fields import links, normal
from programs import slow

from flowqcd.flows import loop_action
from flowqcd.lattice import group, loops, sites

CASES = pytest.mark.parametrize(
  "nc, lattice",
  [(1, (3, 4)), (2, (4, 3)), (3, (3, 4)), (2, (3, 3, 4)), slow(3, (3, 3, 4)), slow(3, (3, 3, 3, 4))],
)


def _through_link(v, lattice, mu):
  """The 2(Nd-1) plaquettes that start with each link along mu, one by one."""
  shift = lambda x, nu, n=1: sites.shift(x, lattice, nu, n)
  found = []
  for nu in range(len(lattice)):
    if nu != mu:
      mul, adj = group.mul, group.adjoint
      found.append(mul(mul(v[mu], shift(v[nu], mu)), mul(adj(shift(v[mu], nu)), adj(v[nu]))))
      down = shift(v[nu], nu, -1)
      found.append(mul(mul(v[mu], adj(shift(down, mu))), mul(adj(shift(v[mu], nu, -1)), down)))
  return found


def _brute(u):
  """W_0 to W_7 and the lines, pair by pair as they are defined."""
  lattice, v = sites.extents(u), sites.flatten(u)
  w = [0.0] * 8
  tr = group.trace
  for mu in range(len(lattice)):
    for a, b in itertools.combinations(_through_link(v, lattice, mu), 2):
      w[1] += 2 * jnp.sum(tr(group.mul(a, group.adjoint(b))).real)
      w[2] += 2 * jnp.sum(tr(group.mul(a, b)).real)
      w[3] += 2 * jnp.sum((tr(a) * tr(b).conj()).real)
      w[4] += 2 * jnp.sum((tr(a) * tr(b)).real)
  for mu, nu in loops.planes(len(lattice)):
    p = loops.plaquette(u, mu, nu).reshape(u.shape[1], u.shape[1], -1)
    w[0] += 2 * jnp.sum(tr(p).real)
    w[5] += 2 * jnp.sum(tr(group.mul(p, p)).real)
    w[6] += 2 * jnp.sum((tr(p) ** 2).real)
    w[7] += jnp.sum(jnp.abs(tr(p)) ** 2)
  lines = [2 * jnp.sum(jnp.einsum("ii...->...", loops.polyakov_line(u, mu)).real) for mu in range(len(lattice))]
  return jnp.stack([jnp.asarray(x) for x in w + lines])


@CASES
def test_loops_and_gradient_against_brute_force(nc, lattice):
  u, nd = links(nc, lattice), len(lattice)
  c = normal((8 + nd,))
  every = tuple(range(nd))
  found = jax.jit(lambda v: loop_action.evaluate(v, lattice, c, every))(sites.flatten(u))
  brute = jax.jit(_brute)(u)
  np.testing.assert_allclose(found.loops, brute, atol=1e-11)
  gradient = jax.jit(group.lie_derivative(lambda u: _brute(u) @ c))(u)
  np.testing.assert_allclose(found.gradient, np.reshape(gradient, found.gradient.shape), atol=1e-12)


@pytest.mark.parametrize("nc, lattice", [(1, (3, 4)), (3, (3, 3)), (2, (3, 3, 3)), slow(3, (3, 3, 3))])
def test_laplacian_table_against_second_derivatives(nc, lattice):
  v, nd = sites.flatten(links(nc, lattice)), len(lattice)
  values = jax.jit(lambda v: loop_action.evaluate(v, lattice, jnp.zeros(8 + nd), tuple(range(nd))).loops)
  a, b = loop_action.laplacian_table(nc, lattice)
  second = laplacian(values, v)
  np.testing.assert_allclose(second, a @ values(v) + b, rtol=2e-5, atol=2e-5 * np.abs(second).max())


def test_the_wilson_flow_alone_is_the_same_action():
  u = sites.flatten(links(3, (3, 3, 4)))
  c = np.zeros(11)
  c[0], c[9] = 0.3, -0.2
  full, quick = (
    jax.jit(lambda u, f=f: f(u, (3, 3, 4), c, (1,)))(u) for f in (loop_action.evaluate, loop_action.evaluate_plaquette)
  )
  np.testing.assert_allclose(quick.gradient, full.gradient, atol=1e-13)
  np.testing.assert_allclose(quick.laplacian, full.laplacian, rtol=1e-12)


def test_short_extents_are_refused():
  with pytest.raises(ValueError, match="at least 3"):
    loop_action.laplacian_table(3, (4, 2))
