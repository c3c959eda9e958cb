import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.flows import spline

K, N = 16, 400


def _random(circular=False, scale=1.0, dtype=jnp.float64):
  parameters = scale * jax.random.normal(jax.random.key(0), (spline.num_parameters(K), N), dtype)
  return spline.make(parameters, circular)


POINTS = jnp.asarray(np.random.default_rng(1).uniform(0, 1, N))


def test_zero_parameters_are_the_identity():
  s = spline.make(jnp.zeros((49, N)))
  y, logderiv = spline.forward(s, POINTS)
  np.testing.assert_allclose(y, POINTS, atol=1e-15)
  np.testing.assert_allclose(logderiv, 0, atol=1e-14)
  y, logderiv = spline.circular_forward(spline.make(jnp.zeros((49, N)), circular=True), POINTS)
  np.testing.assert_allclose(y, POINTS, atol=1e-15)
  np.testing.assert_allclose(logderiv, 0, atol=1e-14)


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_round_trip_and_derivative(scale):
  s = _random(scale=scale)
  y, logderiv = spline.forward(s, POINTS)
  assert ((y >= 0) & (y <= 1)).all()
  back, other = spline.inverse(s, y)
  np.testing.assert_allclose(back, POINTS, atol=1e-11)
  np.testing.assert_allclose(other, -logderiv, atol=1e-7 * scale)
  slope = jax.vmap(jax.grad(lambda x, one: spline.forward(one, x).y), (0, -1))(POINTS, s)
  np.testing.assert_allclose(jnp.log(slope), logderiv, atol=1e-10)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_circular_round_trip_and_derivative(scale):
  s = _random(circular=True, scale=scale)
  x = 7 * POINTS - 3
  y, logderiv = spline.circular_forward(s, x)
  assert ((y >= 0) & (y < 1)).all()
  back, other = spline.circular_inverse(s, y)
  distance = np.abs(back - x)
  # Rounding of y is magnified by dx/dy, which reaches 1e5 where bins are as narrow as they may be.
  allowed = 1e-14 * (1 + np.exp(-np.asarray(logderiv)))
  assert (np.abs(distance - np.round(distance)) < allowed).all()
  np.testing.assert_allclose(other, -logderiv, atol=1e-7)
  # Continuous, with its derivative, where the circle closes.
  e = 1e-13
  left, right = (spline.circular_forward(s, jnp.full(N, z)) for z in (1 - e, e))
  gap = np.abs(np.exp(2j * np.pi * np.asarray(left.y)) - np.exp(2j * np.pi * np.asarray(right.y)))
  assert gap.max() < 1e-5
  np.testing.assert_allclose(left.logderiv, right.logderiv, atol=1e-4)


def test_monotone_with_fixed_ends():
  one = jax.tree.map(lambda v: v[..., :1], _random(scale=3.0))
  x = jnp.linspace(0, 1, 2001)
  y = spline.forward(one, x).y
  assert (jnp.diff(y) > 0).all()
  np.testing.assert_allclose(y[jnp.array([0, -1])], [0, 1], atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_finite_with_gradients_at_and_beyond_the_ends(dtype):
  s = _random(scale=2.0, dtype=dtype)
  for x in (0.0, 1.0, -1e-7, 1 + 1e-6, -0.5, 3.0, 1e6):
    points = jnp.full(N, x, dtype)
    for f in (spline.forward, spline.inverse):
      assert np.isfinite(f(s, points).y).all() and np.isfinite(f(s, points).logderiv).all()
      gradients = jax.grad(lambda s, p, f=f: jnp.sum(f(s, p).y) + jnp.sum(f(s, p).logderiv), (0, 1))(s, points)
      assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_straight_beyond_the_ends_and_invertible_there():
  s = _random()
  for x in (-0.7, 1.9):
    points = jnp.full(N, x)
    y, logderiv = spline.forward(s, points)
    np.testing.assert_allclose(spline.inverse(s, y).y, points, atol=1e-11)
    end = spline.forward(s, jnp.full(N, float(x > 0)))
    np.testing.assert_allclose(logderiv, end.logderiv)
    np.testing.assert_allclose(y, end.y + (x - float(x > 0)) * jnp.exp(end.logderiv), rtol=1e-12)


def test_knots_are_interpolated():
  s = _random(scale=1.0)
  for k in (0, 1, 7, 16):
    np.testing.assert_allclose(spline.forward(s, s.x[k]).y, s.y[k], atol=1e-13)


@pytest.mark.parametrize("count", [1, 3, 48, 50])
def test_other_numbers_of_parameters_are_named(count):
  with pytest.raises(ValueError, match=f"not {count}"):
    spline.make(jnp.zeros((count, 1)))


def test_end_ratios_are_ratios_and_stay_finite_at_the_ends():
  s = _random(scale=2.0)
  y = spline.forward(s, POINTS).y
  low, high = spline.end_ratios(s, POINTS, y)
  np.testing.assert_allclose(low, np.log(y / POINTS), atol=1e-11)
  np.testing.assert_allclose(high, np.log((1 - y) / (1 - POINTS)), atol=1e-9)
  # At an end the ratio is the slope there.
  for x, index in ((0.0, 0), (1.0, -1)):
    ends = spline.end_ratios(s, jnp.full(N, x), spline.forward(s, jnp.full(N, x)).y)
    np.testing.assert_allclose(ends[index], np.log(s.slope[index]), atol=1e-10)
    gradient = jax.grad(lambda s, x: sum(jnp.sum(r) for r in spline.end_ratios(s, x, spline.forward(s, x).y)), (0, 1))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient(s, jnp.full(N, x))))


def _single_and_double(scale=3.0, bins=6, count=2000):
  """Random splines in single precision, and the same knots in double."""
  parameters = scale * jax.random.normal(jax.random.key(3), (spline.num_parameters(bins), count), jnp.float32)
  single = spline.make(parameters)
  return single, jax.tree.map(lambda v: v.astype(jnp.float64), single)


def _places(s):
  """Ends, the numbers next to them, knots, points between and beyond; each the image of many splines."""
  count = s.y.shape[-1]
  random = jnp.asarray(np.random.default_rng(2).uniform(0, 1, count), jnp.float32)
  fixed = [0.0, 1.0, 1 - 2.0**-24, 1e-30, -0.5, 1.5]
  return [random, *s.y[1:-1], *(jnp.full(count, y, jnp.float32) for y in fixed)]


def test_single_precision_inverse_is_good_to_rounding():
  single, double = _single_and_double()
  inverse, forward = jax.jit(spline.inverse), jax.jit(spline.forward)
  eps = np.finfo(np.float32).eps
  for y in _places(single):
    x = inverse(single, y).y
    image = forward(double, x.astype(jnp.float64))
    # Rounding x alone moves the image by dy/dx, which reaches a thousand; beyond the ends the slope is rounded too.
    allowed = eps * (np.abs(y) + np.abs(x) * np.exp(image.logderiv) + 100 * ((y < 0) | (y > 1)))
    assert (np.abs(image.y - y) <= 2 * allowed).all()
    assert ((x >= 0) & (x <= 1) | (y < 0) | (y > 1)).all()


@pytest.mark.parametrize("output", [0, 1])
def test_single_precision_gradients_of_the_inverse_are_those_of_double(output):
  single, double = _single_and_double()
  gradient = jax.jit(jax.grad(lambda s, y: jnp.sum(spline.inverse(s, y)[output]), (0, 1)))
  for y in _places(single):
    found, exact = gradient(single, y), gradient(double, y.astype(jnp.float64))
    stack = lambda tree: np.concatenate([np.asarray(v, float).reshape(-1, len(y)) for v in jax.tree.leaves(tree)])
    found, exact = stack(found), stack(exact)
    # NaN compares false.
    assert (np.linalg.norm(found - exact, axis=0) <= 1e-4 * np.linalg.norm(exact, axis=0)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_steep_last_bin_has_the_implicit_gradient_at_its_end(dtype):
  parameters, one = jnp.asarray([0, -3, 0, 3, 0, 0, -8], dtype), jnp.ones((), dtype)
  s = spline.make(parameters)
  at = lambda s, y: spline.inverse(s, y).y
  # At y = 1, dx/dy = 1/d_2, and only the top knots move x.
  x, (by_knots, slope) = jax.jit(jax.value_and_grad(at, (0, 1)))(s, one)
  assert x == 1
  np.testing.assert_allclose(slope, 1 / s.slope[-1], rtol=1e-6)
  np.testing.assert_allclose(by_knots.x, [0, 0, 1], atol=1e-6)
  np.testing.assert_allclose(by_knots.y, [0, 0, -1 / s.slope[-1]], rtol=1e-6)
  # The other mode of differentiation, under vmap.
  of_parameters = lambda p: spline.inverse(spline.make(p), one).logderiv
  forward_mode = jax.jit(jax.vmap(lambda t: jax.jvp(of_parameters, (parameters,), (t,))[1]))(jnp.eye(7, dtype=dtype))
  np.testing.assert_allclose(forward_mode, jax.jit(jax.grad(of_parameters))(parameters), rtol=1e-5, atol=1e-5)
  if dtype == jnp.float64:
    # Second derivatives too: log dx/dy changes by x''/x' with y.
    orders = lambda y: (jax.grad(at, 1)(s, y), jax.grad(jax.grad(at, 1), 1)(s, y))
    (slope, curvature) = jax.jit(orders)(one - 1e-3)
    change = jax.jit(jax.grad(lambda y: spline.inverse(s, y).logderiv))(one - 1e-3)
    np.testing.assert_allclose(curvature / slope, change, rtol=1e-8)


def test_the_slope_is_whole_at_knots_and_ends():
  s = _random()
  for knots, map_ in ((s.x, spline.forward), (s.y, spline.inverse)):
    at = jax.grad(lambda x, f=map_: (jnp.sum(f(s, x).y), f(s, x).logderiv), has_aux=True)
    slopes, logderivs = jax.jit(jax.vmap(at))(knots)
    np.testing.assert_allclose(slopes, jnp.exp(logderivs), rtol=1e-8)
