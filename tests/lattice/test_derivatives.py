"""Forward mode, and derivatives of derivatives, of what has its adjoint by hand: against differences and each other."""

import fields
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flowqcd.flows import transport, wilson_loops
from flowqcd.lattice import exponential, fusion, group, linear, sites
from flowqcd.theory import determinant, dirac, gauge

STEP = 1e-4


def _random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape, complex)


def _along(function, x, seed=9):
  """A real function of one number, through x in a random direction."""
  leaves, structure = jax.tree.flatten(x)
  step = [jax.random.normal(jax.random.key(seed + i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
  step = jax.tree.unflatten(structure, step)
  return lambda t: function(jax.tree.map(lambda a, b: a + t * b, x, step))


def _all_orders(line):
  """Value, first derivatives by both modes, and second ones by all four ways."""
  forward = lambda f: lambda t: jax.jvp(f, (t,), (1.0,))[1]
  first = jax.grad(line), forward(line)
  second = [mode(f) for f in first for mode in (jax.grad, forward)]
  return jax.jit(lambda t: [line(t), jnp.stack([f(t) for f in first]), jnp.stack([f(t) for f in second])])


def _check(function, x, rtol=1e-6):
  every = _all_orders(_along(function, x))
  (low, by_low, _), (_, first, second), (high, by_high, _) = (every(t) for t in (-STEP, 0.0, STEP))
  np.testing.assert_allclose(first, (high - low) / (2 * STEP), rtol=rtol)
  np.testing.assert_allclose(first[0], first[1], rtol=1e-10)
  np.testing.assert_allclose(second, (by_high[0] - by_low[0]) / (2 * STEP), rtol=rtol)
  assert abs(second[0]) > 1e-3


def test_products_behind_barriers():
  a, w = _random(0, 2, 2, 3), _random(1, 3, 2, 2, 3)

  def function(x):
    x, y = fusion.materialise((x, fusion.materialise_cotangents(group.mul(x, x))))
    # A batch against one matrix, on either side.
    return jnp.sum(group.mul(jax.vmap(group.mul, (0, None))(w, y), jax.vmap(group.mul, (None, 0))(x, w))).real

  _check(function, a)


def test_a_barrier_leaves_what_does_not_move():
  value, tangent = jax.jvp(lambda x: fusion.materialise((x, jnp.arange(3))), (2.0,), (1.0,))
  assert value[0] == 2 and tangent[0] == 1 and tangent[1].dtype == jax.dtypes.float0


@pytest.mark.parametrize("scanned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_exponential(scanned):
  """Large arguments, at the second site, are squared in a loop; a scan with recomputation is what flows are."""
  w, size = _random(1, 2, 2, 2), jnp.array([0.3, 6.0])

  def function(x):
    step = lambda u, _: (group.mul(exponential.exp(size * group.project(u)), u), None)
    end = lax.scan(jax.checkpoint(step), x, length=2)[0] if scanned else step(x, None)[0]
    return jnp.sum(w * end).real

  _check(function, group.haar(jax.random.key(0), (2, 2, 2), jnp.complex128), 1e-4)


def test_the_wilson_action():
  _check(lambda u: gauge.wilson(u, 2.0), fields.links(2, (2, 3)))


def test_larger_loops():
  v = sites.flatten(fields.links(2, (4, 3)))
  _check(lambda v: jnp.sum(wilson_loops.values(v, ("aabAAB",), (4, 3)) ** 2), v)


def test_the_determinant():
  _check(lambda u: determinant.log_det(u, 0.2), fields.links(1, (2, 2)))


@pytest.mark.parametrize("copies", [(2, 1), (1, 2)])
def test_parallel_transport(copies):
  """All three arguments move, those of the term without a link too; and copies are mixed before the links or after."""
  before, after = copies
  links = transport.split(dirac.hopping_links(fields.links(1, (2, 2)), None))
  weights, psi = _random(1, 5, after, before, 4).real, _random(2, 2, before, 2, 1, 4).real
  _check(lambda x: jnp.sum(transport.layer(*x, (2, 2)) ** 2), (psi, weights, links))


def test_a_batch_of_which_some_is_shared():
  """As draws of pseudofermions share weights and links: their cotangents are sums over the batch."""
  matrix, x = _random(0, 3, 3).real, _random(1, 4, 3).real
  apply, transpose = lambda c, x: (c[0] @ x[0],), lambda c, y: (c[0].T @ y[0],)
  one = lambda m, x: jnp.sum(linear.call(apply, transpose, (m,), (x,))[0] ** 2)
  plain = lambda m, x: jnp.sum((m @ x) ** 2)
  for axes in ((None, 0), (0, None)):
    args = (matrix, x) if axes[0] is None else (jnp.stack([matrix] * 2), x[0])
    found, expected = (jax.grad(lambda m, x: jnp.sum(jax.vmap(f, axes)(m, x)), (0, 1))(*args) for f in (one, plain))
    for a, b in zip(found, expected):
      np.testing.assert_allclose(a, b, rtol=1e-12)


def test_the_transpose_is_the_one_by_hand():
  """Here a wrong one, to see it."""
  f = lambda x: linear.call(lambda _, x: (2 * x[0],), lambda _, y: (3 * y[0],), (), (x,))[0]
  assert jax.grad(f)(1.0) == 3 and jax.jvp(f, (1.0,), (1.0,))[1] == 2
  assert jax.jvp(lambda t: jax.grad(lambda x: f(x) ** 2)(t), (1.0,), (1.0,))[1] == 12  # 2 f(x) 3, and f' = 2


def test_a_layer_whose_jacobian_is_found_by_forward_mode_can_be_trained():
  """U' = exp(s TA(U A)) U for one link of SU(2) in the coordinates of its algebra: ln |det| and its gradient by s."""
  staple, u = _random(0, 2, 2, 1), group.haar(jax.random.key(1), (2, 2, 1), jnp.complex128)

  def moved(s, u):
    return group.mul(exponential.exp(s * group.project(group.mul(u, staple))), u)

  def logdet(s):
    at = moved(s, u)

    def near(x):
      end = moved(s, group.mul(exponential.exp(group.from_coordinates(x[:, None], 2)), u))
      return group.to_coordinates(group.project(group.mul(end, group.adjoint(at))))[:, 0]

    return jnp.linalg.slogdet(jax.jacfwd(near)(jnp.zeros(3)))[1]

  trained = jax.jit(jax.value_and_grad(logdet))
  (low, _), (_, slope), (high, _) = (trained(0.3 + h) for h in (-STEP, 0.0, STEP))
  np.testing.assert_allclose(slope, (high - low) / (2 * STEP), rtol=1e-6)
  assert abs(slope) > 0.01
