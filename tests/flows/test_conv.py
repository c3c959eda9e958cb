import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.flows import conv

# One and two directions a group, odd and even extents, every extent that differs in how neighbours coincide.
LATTICES = [(4, 4), (8, 8), (5, 1), (16, 8), (3, 4, 2), (1, 5, 8), (4, 4, 4, 4), (8, 4, 2, 3)]


def _random(net, seed=0):
  """Parameters of order one over the square root of the channels, biases too, all different."""
  shapes = jax.tree.map(lambda p: p.shape, jax.eval_shape(net.init, jax.random.key(0)))
  rng = np.random.default_rng(seed)
  draw = lambda shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))))
  return jax.tree.map(draw, shapes, is_leaf=lambda s: isinstance(s, tuple))


def _loops(params, x, lattice, slope):
  """Plain NumPy, one site, one offset at a time."""
  for i in range(len(params)):
    block = {name: np.asarray(p) for name, p in params[f"block{i}"].items()}
    x = np.where(x > 0, x, slope * x) if i else x
    for mu in range(len(lattice)):
      w = block[f"w{mu}"]
      y = np.zeros((w.shape[2], x.shape[1]))
      for site in itertools.product(*map(range, lattice)):
        for j in range(len(w)):
          at = list(site)
          at[mu] = (at[mu] + j - len(w) // 2) % lattice[mu]
          s, t = (np.ravel_multi_index(p, lattice) for p in (site, tuple(at)))
          y[:, s] += w[j].T @ x[:, t]
      x = y
    x = x + block["b"][:, None]
  return x


def _rolls(params, x, lattice, slope):
  """The same in a differentiable form."""
  x = x.reshape(-1, *lattice)
  for i in range(len(params)):
    block = params[f"block{i}"]
    x = jnp.where(x > 0, x, slope * x) if i else x
    for mu in range(len(lattice)):
      w = block[f"w{mu}"]
      x = sum(jnp.einsum("io,i...->o...", w[j], jnp.roll(x, len(w) // 2 - j, mu + 1)) for j in range(len(w)))
    x = x + block["b"].reshape(-1, *(1,) * len(lattice))
  return x.reshape(x.shape[0], -1)


def _case(lattice, kernel=3, remat=True, seed=3, widen_last=False):
  config = conv.Config(hidden=(4,), kernel=kernel, gain=1.0, slope=0.1, widen_last=widen_last)
  net = conv.make(config, 3, 6, lattice, remat)
  x = jax.random.normal(jax.random.key(seed), (2, 3, int(np.prod(lattice))))
  return net, _random(net), x


def _close(a, b, rtol=1e-12):
  """Equal up to rounding of the largest element."""
  for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(p, q, rtol=0, atol=rtol * (1 + np.abs(q).max()))


@pytest.mark.parametrize("widen_last", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("lattice", [*LATTICES, (6,)])
def test_equals_loops_over_sites(lattice, kernel, widen_last):
  net, params, x = _case(lattice, kernel, widen_last=widen_last)
  _close(jax.jit(net.apply)(params, x[0]), _loops(params, np.asarray(x[0]), lattice, 0.1))


@pytest.mark.parametrize(
  "lattice, kernel, remat, widen_last",
  [
    ((4, 4), 3, True, False),
    ((5, 8), 3, False, False),
    ((3, 2, 4), 5, True, False),
    ((3, 2, 4), 5, False, True),
    ((4, 2, 4, 4), 3, True, False),
    ((4, 2, 4, 4), 3, True, True),
  ],
)
def test_gradients_equal_those_of_rolls(lattice, kernel, remat, widen_last):
  net, params, x = _case(lattice, kernel, remat, widen_last=widen_last)
  loss = lambda apply: lambda p, x: jnp.sum(jnp.sin(jax.vmap(apply, (None, 0))(p, x)))
  ours = jax.jit(jax.grad(loss(net.apply), (0, 1)))(params, x)
  _close(ours, jax.jit(jax.grad(loss(lambda p, x: _rolls(p, x, lattice, 0.1)), (0, 1)))(params, x))
  # One gradient for each configuration, which batches the products' derivatives.
  one = lambda p, x: jnp.sum(jnp.sin(net.apply(p, x)))
  each = jax.jit(jax.vmap(jax.grad(one, (0, 1)), (None, 0)))(params, x)
  _close((jax.tree.map(lambda g: g.sum(0), each[0]), each[1]), ours)


@pytest.mark.parametrize("lattice", [(4, 4, 4), (5, 8)])
def test_batches_in_any_way_give_the_same(lattice):
  net, params, x = _case(lattice)
  apply = jax.jit(net.apply)
  batch = lambda p, x, *axes: jax.jit(jax.vmap(net.apply, *axes))(p, x)
  expected = jnp.stack([apply(params, one) for one in x])
  _close(batch(params, x, (None, 0)), expected)
  _close(batch(params, jnp.moveaxis(x, 0, 2), (None, 2), 2), jnp.moveaxis(expected, 0, 2))
  nested = jax.jit(jax.vmap(jax.vmap(net.apply, (None, 0)), (None, 0)))(params, jnp.stack([x, 2 * x]))
  _close(nested[0], expected)
  mapped = jax.pmap(jax.vmap(net.apply, (None, 0)), in_axes=(None, 0))
  _close(mapped(params, x[:, None])[:, 0], expected)
  # Parameters with a batch of their own.
  others = _random(net, seed=7)
  stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, others)
  _close(batch(stacked, x), jnp.stack([apply(params, x[0]), apply(others, x[1])]))
  _close(batch(stacked, x[0], (0, None))[1], apply(others, x[0]))


def test_forward_derivative():
  net, params, x = _case((4, 4, 4))
  tangent = jax.jit(lambda x, v: jax.jvp(lambda y: net.apply(params, y), (x,), (v,))[1])(x[0], x[1])
  h, apply = 1e-6, jax.jit(net.apply)
  _close(tangent, (apply(params, x[0] + h * x[1]) - apply(params, x[0] - h * x[1])) / (2 * h), rtol=1e-8)


def test_scan_over_layers():
  lattice, net = (4, 4), conv.make(conv.Config(hidden=(4,)), 3, 3, (4, 4))
  layers = [_random(net, seed) for seed in range(3)]
  stacked = jax.tree.map(lambda *p: jnp.stack(p), *layers)
  x = jax.random.normal(jax.random.key(1), (2, 3, 16))

  def scanned(stacked, x):
    step = lambda x, p: (x + jax.vmap(net.apply, (None, 0))(p, x), None)
    return jax.lax.scan(step, x, stacked)[0]

  def unrolled(layers, x):
    for p in layers:
      x = x + jnp.stack([_rolls(p, one, lattice, 0.01) for one in x])
    return x

  value = lambda f: jax.jit(jax.value_and_grad(lambda p, x: jnp.sum(f(p, x) ** 2), (0, 1)))
  ours, (gp, gx) = value(scanned)(stacked, x)
  theirs, (hp, hx) = value(unrolled)(layers, x)
  _close((ours, gp, gx), (theirs, jax.tree.map(lambda *p: jnp.stack(p), *hp), hx))


@pytest.mark.parametrize("lattice", [(4, 4, 4, 4), (8, 5)])
def test_translation_equivariance(lattice):
  net, params, x = _case(lattice)
  move = lambda y: jnp.roll(y.reshape(-1, *lattice), range(1, 1 + len(lattice)), range(1, 1 + len(lattice))).reshape(
    y.shape
  )
  apply = jax.jit(net.apply)
  _close(apply(params, move(x[0])), move(apply(params, x[0])))


@pytest.mark.parametrize("lattice", [(4, 4, 4), (8, 5)])
def test_apply_at(lattice):
  net, params, x = _case(lattice)
  sites = jax.random.permutation(jax.random.key(0), x.shape[-1])[: x.shape[-1] // 4]
  value = lambda f: jax.jit(jax.value_and_grad(lambda p, x: jnp.sum(jnp.sin(f(p, x))), (0, 1)))
  cut = value(lambda p, x: jax.vmap(net.apply_at, (None, 0, None))(p, x, sites))
  full = value(lambda p, x: jax.vmap(net.apply, (None, 0))(p, x)[:, :, sites])
  _close(cut(params, x), full(params, x))
  _close(jax.jit(net.apply_at)(params, x[0], sites), jax.jit(net.apply)(params, x[0])[:, sites])


@pytest.mark.parametrize("channels, count", [(12, 61_402), (13, 61_498)])
def test_parameters_of_the_paper(channels, count):
  net = conv.make(conv.Config(), channels, 49, (4, 4, 4, 4))
  params = jax.jit(net.init)(jax.random.key(0))
  assert sum(p.size for p in jax.tree.leaves(params)) == count
  normalised = []
  for block in params.values():
    assert not block.pop("b").any()
    for w in block.values():
      k, fan_in, fan_out = w.shape
      std = 0.5 * np.sqrt(2 / (k * (fan_in + fan_out)))
      np.testing.assert_allclose(np.std(w), std, rtol=5 / np.sqrt(2 * w.size))
      normalised.append(np.ravel(w) / std)
  sample = np.sort(np.concatenate(normalised))
  # Kurtosis 3 with error sqrt(24/n): a normal law, not a truncated or a uniform one.
  np.testing.assert_allclose(np.mean(sample**4) / np.mean(sample**2) ** 2, 3, atol=5 * np.sqrt(24 / sample.size))
  assert abs(sample.mean()) < 5 / np.sqrt(sample.size)


def test_parameters_carry_over_to_other_extents():
  config = conv.Config(hidden=(4,))
  small, large = (conv.make(config, 3, 2, lattice) for lattice in ((4, 4, 4, 4), (8, 4, 4, 4)))
  params = _random(small)
  shapes = lambda net: jax.eval_shape(net.init, jax.random.key(0))
  assert shapes(small) == shapes(large)
  # A field that repeats itself has the same image on both.
  x = jax.random.normal(jax.random.key(1), (3, 4, 64))
  image = jax.jit(small.apply)(params, x.reshape(3, -1)).reshape(2, 4, 64)
  twice = jax.jit(large.apply)(params, jnp.concatenate([x, x], axis=1).reshape(3, -1)).reshape(2, 8, 64)
  _close(twice, jnp.concatenate([image, image], axis=1))


@pytest.mark.parametrize("lattice", [(4, 4, 4, 4), (16, 16)])
def test_precision_follows_the_input(lattice):
  net, params, x = _case(lattice)
  apply = jax.jit(net.apply)
  exact, single = apply(params, x[0]), apply(params, x[0].astype(jnp.float32))
  assert exact.dtype == jnp.float64 and single.dtype == jnp.float32
  _close(single, exact, rtol=3e-6)
  narrow = jax.tree.map(lambda p: p.astype(jnp.float32), params)
  out, gradient = jax.eval_shape(jax.value_and_grad(lambda p: net.apply(p, x[0]).sum()), narrow)
  assert out.dtype == jnp.float64 and gradient["block0"]["w0"].dtype == jnp.float32


@pytest.mark.parametrize(
  "field, value",
  [("hidden", (4, 0)), ("kernel", 4), ("kernel", -1), ("gain", 0.0), ("gain", float("nan")), ("slope", float("inf"))],
)
def test_bad_configs_are_named(field, value):
  with pytest.raises(ValueError, match=field):
    conv.Config(**{field: value})


def test_bad_sizes_are_named():
  for arguments, name in [
    ((0, 1, (4, 4)), "channels_in"),
    ((1, 0, (4, 4)), "channels_out"),
    ((1, 1, (4, 0)), "lattice"),
  ]:
    with pytest.raises(ValueError, match=name):
      conv.make(conv.Config(), *arguments)


def test_no_hidden_channels_and_kernel_one():
  net = conv.make(conv.Config(hidden=(), kernel=1), 2, 3, (4, 4))
  params = _random(net)
  x = jax.random.normal(jax.random.key(0), (2, 16))
  _close(jax.jit(net.apply)(params, x), _loops(params, np.asarray(x), (4, 4), 0.01))
