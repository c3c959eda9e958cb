"""Kernels by themselves, complex64 on 4^4 unless the name says otherwise."""

import jax
import jax.numpy as jnp
import pytest
from benchmarks.conftest import Target
from jax import lax

from flowqcd.flows import conv, loop_action, transport
from flowqcd.lattice import exponential, group, sites
from flowqcd.models import priors
from flowqcd.theory import determinant, dirac, gauge, pseudofermion, solvers, wilson_flow

SMALL = (4, 4, 4, 4)
TYPES = pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128], ids=["single", "double"])
LINK_PRODUCTS = 13
"""Of the gauge force, a link, with the sums: 2.8 kflop."""
PRODUCT = 216
"""Operations of a 3x3 product: 27 complex multiplications and additions."""
WILSON = 1368
"""Operations of 1 - kappa H at a site: 1320 of the hops and the sum."""


def links(lattice, batch, dtype=jnp.complex64):
  keys = jax.random.split(jax.random.key(1), batch)
  return jax.vmap(priors.haar(3, lattice, dtype).sample)(keys)


def spinors(shape, dtype=jnp.complex64):
  return jax.random.normal(jax.random.key(2), shape, dtype)


def volume(lattice):
  count = 1
  for extent in lattice:
    count *= extent
  return count


def chain(a):
  """Six products in a row."""
  b = a
  for _ in range(6):
    b = group.mul(b, a)
  return b


def test_colour_products(kernel):
  a = group.haar(jax.random.key(0), (3, 3, 65_536))
  kernel(chain, a, operations=6 * PRODUCT * 65_536, traffic=2 * a.nbytes, target=Target("GF/s", 22))


def test_colour_products_gradient(kernel):
  a = group.haar(jax.random.key(0), (3, 3, 65_536))
  gradient = jax.grad(lambda a: jnp.sum(chain(a).real))
  kernel(gradient, a, operations=3 * 6 * PRODUCT * 65_536, traffic=3 * a.nbytes, target=Target("GF/s", 10))


def test_gauge_force_4x4x4x4(kernel):
  """Thirty-two fields, eight at a time: what fits the cache."""
  u = links(SMALL, 32)
  kernel(
    lambda u: lax.map(lambda u: gauge.wilson_force(u, 1.0), u, batch_size=8), u, items=32,
    operations=LINK_PRODUCTS * PRODUCT * 4 * 256, traffic=2 * u.nbytes / 32, target=Target("GF/s", 12),
  )  # fmt: skip


def test_gauge_force_8x8x8x8(kernel):
  u = links((8, 8, 8, 8), 1)[0]
  kernel(
    lambda u: gauge.wilson_force(u, 1.0), u, operations=LINK_PRODUCTS * PRODUCT * 4 * 4096, traffic=2 * u.nbytes,
    target=Target("GF/s", 12),
  )  # fmt: skip


@TYPES
def test_exponential(kernel, dtype):
  x = group.gaussian(jax.random.key(3), (32, 4, 3, 3, 256), dtype)
  kernel(exponential.exp, x, items=32, traffic=2 * x.nbytes / 32, double=dtype == jnp.complex128)


@TYPES
def test_next_to_leading_loops(kernel, dtype):
  u, c = links(SMALL, 8, dtype), jnp.ones(12, jnp.finfo(dtype).dtype)
  run = jax.vmap(lambda u: loop_action.evaluate(sites.flatten(u), SMALL, c, (0, 1, 2, 3)))
  # Nineteen products a plane and site, and the lines.
  kernel(run, u, items=8, operations=(19 * 6 + 12) * PRODUCT * 256, double=dtype == jnp.complex128)


@pytest.mark.parametrize("gradient", [False, True], ids=["forward", "gradient"])
@pytest.mark.parametrize("copies", [(1, 4), (4, 4), (4, 1)], ids=["1to4", "4to4", "4to1"])
def test_parallel_transport_layer(kernel, copies, gradient):
  """A hop of the paper's networks; the gradient, by fields and weights, has three times the operations."""
  into, out = copies
  hops = transport.split(jax.jit(lambda u: dirac.hopping_links(u, None))(links(SMALL, 1)[0]))
  psi, weights = (
    spinors((2, into, 4, 3, 256)).real,
    jax.random.normal(jax.random.key(3), (9, out, into, 256), jnp.float32),
  )
  run = lambda psi, weights: transport.layer(psi, weights, hops, SMALL)
  work = 2 * 8 * 6 * (into + 2 * out) + 16 * min(into, out) * 66 + 4 * out * into * 3 * 20
  kernel(
    jax.grad(lambda *x: jnp.sum(run(*x) ** 2), (0, 1)) if gradient else run, psi, weights,
    operations=(3 if gradient else 1) * work * 256,
    traffic=(3 if gradient else 1) * 4 * 256 * (24 * (into + out) + 9 * into * out + 144),
  )  # fmt: skip


@pytest.mark.parametrize("dtype, most", [(jnp.complex64, 0.7), (jnp.complex128, 2.2)], ids=["single", "double"])
def test_wilson_8x8x8x8(kernel, dtype, most):
  lattice = (8, 8, 8, 8)
  u, psi = links(lattice, 1, dtype)[0], spinors((4, 3, 4096), dtype)
  hops = jax.jit(lambda u: dirac.hopping_links(u, None))(u)
  shift = lambda x, mu, sign: sites.shift(x, lattice, mu, sign)
  kernel(
    lambda hops, psi: psi - 0.1 * dirac.hop(hops, psi, shift), hops, psi, operations=WILSON * 4096,
    traffic=hops.nbytes + 2 * psi.nbytes, double=dtype == jnp.complex128, target=Target("cpu ms", most),
  )  # fmt: skip


def test_wilson_sources(kernel):
  """D D^dag on twelve sources of 8^4, one after the other: together they would not fit the cache."""
  u, psi = links((8, 8, 8, 8), 1)[0], spinors((12, 4, 3, 4096))
  kernel(
    lambda u, psi: lax.map(dirac.normal(dirac.wilson(u, 0.1)).apply, psi), u, psi, items=12,
    operations=2 * WILSON * 4096, traffic=2 * psi.nbytes / 12, target=Target("GF/s", 8),
  )  # fmt: skip


@TYPES
def test_schur_normal(kernel, dtype):
  """M M^dag at eight gauge fields, its links prepared anew each time; without that, see the iterations of `test_cg`."""
  u, psi = links(SMALL, 8, dtype), spinors((8, 4, 3, 128), dtype)
  kernel(
    jax.vmap(lambda u, psi: dirac.normal(dirac.schur(u, 0.1)).apply(psi)), u, psi, items=8,
    operations=2 * WILSON * 256, double=dtype == jnp.complex128,
  )  # fmt: skip


@pytest.mark.parametrize("kind", ["single", "double", "refined"])
def test_cg(kernel, kind):
  """To 1e-6; refined: double precision, with the work in single."""
  dtype = jnp.complex64 if kind == "single" else jnp.complex128
  u, b = links(SMALL, 8, dtype), spinors((8, 4, 3, 128), dtype)

  def solve(u, b):
    apply = dirac.normal(dirac.schur(u, 0.1)).apply
    if kind != "refined":
      return solvers.cg(apply, b, 1e-6)
    return solvers.refined_cg(apply, dirac.normal(dirac.schur(u.astype(jnp.complex64), 0.1)).apply, b, 1e-6)

  iterations = int(jnp.max(jax.vmap(solve)(u, b).iterations))
  kernel(
    jax.vmap(lambda u, b: solve(u, b).x), u, b, items=8, operations=iterations * 2 * WILSON * 256,
    double=kind == "double", target=Target("GF/s", 8) if kind == "single" else None, note=f"{iterations} iterations",
  )  # fmt: skip


def test_pseudofermion_force(kernel):
  action = pseudofermion.even_odd(0.1, tolerances=(1e-4, 1e-6))
  u, phi = links(SMALL, 8), spinors((8, 4, 3, 128))
  kernel(jax.vmap(action.force), u, phi, items=8)


@TYPES
def test_determinant(kernel, dtype):
  """The dense Schur complement and its LU."""
  u = links(SMALL, 1, dtype)
  # 8/3 n^3 real operations of a complex LU.
  kernel(
    lambda u: determinant.log_det(u[0], 0.1), u, operations=8 / 3 * 1536**3, double=dtype == jnp.complex128
  )  # fmt: skip


def test_wilson_flow_step(kernel):
  u = links(SMALL, 8)
  kernel(jax.vmap(lambda u: wilson_flow.flow(u, 0.01)), u, items=8)


def test_convolutions(kernel):
  """The marginal's network 12-32-32-32-49, forward and backward; a direct convolution's operations."""
  net = conv.make(conv.Config(), 12, 49, SMALL)
  params = jax.tree.map(lambda x: x.astype(jnp.float32), net.init(jax.random.key(0)))
  x = jax.random.normal(jax.random.key(1), (32, 12, 256), jnp.float32)

  def loss(params, x):
    return jnp.sum(jax.vmap(net.apply, (None, 0))(params, x) ** 2)

  kernel(
    jax.grad(loss, (0, 1)), params, x, items=32, operations=3 * net.operations, target=Target("GF/s", 110)
  )  # fmt: skip
