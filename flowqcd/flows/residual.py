r"""Residual (stout-like) masked layers: U' = e^Z U on the links of one mask, with Z made of their frozen staples.

With L_k = U A_k the 2(Nd-1) plaquettes that start with the active link and X their sum, Z = TA(Y),
  Y = sum_k c_k L_k + d_1 X^2 + d_2 (tr X)^* X + d_3 tr X X + sum_k [d_4 L_k^2 + d_5 tr L_k L_k + d_6 (tr L_k)^* L_k]:
the first term is stout smearing, hep-lat/0311018, the others are what the next order of the trivializing flow adds at the
link itself. The c and d are numbers of the layer and, with networks, functions of loops that hold no active link. So
the Jacobian is one matrix of the algebra's dimension for each link, in coordinates 1 + E with E = dexp(-ad_Z) dZ/dU,
and exact; arXiv:2305.02402 has flows of this kind.

|E| < 1 makes a layer invertible, by the fixed point U = e^{-Z(U)} U', and ln det E safe. Since |dexp(-ad_Z)| <= 1 it is
enough that |dZ/dU| < 1, for which `_limit` has a bound in the c and d that holds for all links.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.flows import conv, layers, loop_action, masks, staples
from flowqcd.lattice import algebra, exponential, fusion, group, loops, sites
from flowqcd.types import AnyArray, Array, Flow, Key, Params

NUM_SHARED = 6
"""The coefficients d."""
_MOST = 0.9
"""Bound of |dZ/dU|."""
_ITERATIONS = 400
"""Steps of the fixed point before it counts as failed: 0.9^400 < 1e-18."""


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """A flow of residual layers. A sweep, which updates every link once, has Nd * width of them."""

  sweeps: int = _field(3, "Sweeps over all links.")
  width: int = _field(2, "Period of the masks; extents are multiples of it.")
  order: int = _field(2, "1: stout terms alone; 2: quadratic ones too.")
  networks: bool = _field(False, "Coefficients from networks that see frozen loops, beside the constant ones.")
  # Gain one: the networks' values are of order one from the start. With a half they are 2e-4, and gates start from zero.
  net: conv.Config = conv.Config(hidden=(16, 16), gain=1.0)

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if self.sweeps < 1:
      raise ValueError(f"sweeps must be at least 1, not {self.sweeps}")
    if self.order not in (1, 2):
      raise ValueError(f"order must be 1 or 2, not {self.order}")


class Coefficients(NamedTuple):
  """Of the loops L_1, .., L_K, X at the active links, each [K + 1, n or 1]: of L, L^2, tr L L and (tr L)^* L in Y."""

  linear: Array
  square: Array
  trace: Array
  conjugate: Array


class _Layer(NamedTuple):
  """A layer's masks as data."""

  table: staples.Table
  sites: AnyArray
  frozen: AnyArray


def make(config: Config, beta: float, nc: int, lattice: sites.Extents) -> Flow:
  """The flow on links [Nd, Nc, Nc, *L], in the beginning the leading order of the trivializing one, for -(beta/Nc) Re tr P.

  Parameters: {"constant": [layers, 7]}, deviations of c (the same for all staples) and d from that in units of
  `loop_action.natural_scale` over the number of sweeps; with networks also {"net", "gate": [layers, 2(Nd-1) + 6]}, the
  gates zero in the beginning. They do not depend on the extents. The inverse's point is NaN where the fixed point did not
  converge. Raises MaskError where extents and width do not fit, ShapeError for links of another group or lattice.
  """
  lattice = tuple(lattice)
  nd, count = len(lattice), config.sweeps * len(lattice) * config.width
  net = _network(config, nc, lattice)
  num_staples = 2 * (nd - 1)
  start = -beta / (2 * nc) / (4 * group.casimir(nc)) / config.sweeps
  scale = loop_action.natural_scale(nc, nd)[[0, 2, 3, 4, 5, 6, 7]] / config.sweeps

  def init(key: Key) -> Params:
    params = {"constant": jnp.zeros((count, 1 + NUM_SHARED))}
    if net is not None:
      params["net"] = jax.vmap(net.init)(jax.random.split(key, count))
      params["gate"] = jnp.zeros((count, num_staples + NUM_SHARED))
    return params

  def coefficients(params: Params, features: Callable[[], Array], m: _Layer) -> Coefficients:
    real = params["constant"].dtype
    c = (params["constant"] * jnp.asarray(scale, real))[:, None]
    each, shared = jnp.repeat(start + c[:1], num_staples, axis=0), c[1:]
    if net is not None:
      units = jnp.asarray([scale[0]] * num_staples + list(scale[1:]), real)
      seen = (units * params["gate"])[:, None] * net.apply_at(params["net"], features(), m.sites)
      each, shared = each + seen[:num_staples], shared + seen[num_staples:]
    return _limit(_arrange(each, shared if config.order == 2 else 0 * shared), nc)

  def update(v: Array, params: Params, m: _Layer, inverse: bool) -> tuple[Array, Array]:
    active = staples.gather(v, m.table)
    c = coefficients(params, lambda: _features(v, lattice, m, active.staples), m)
    links, logdet = (_backward if inverse else _forward)(active, c, config.order)
    return staples.scatter(v, m.table, links), logdet

  # A layer that is computed again costs a third of one that is stored: fresh memory is slow.
  return layers.make(init, update, _layers(config, lattice), nc, lattice, remat=True)


def _layers(config: Config, lattice: sites.Extents) -> _Layer:
  """Of all layers, with a leading axis."""
  configs = masks.sweep(len(lattice), config.width) * config.sweeps
  m = masks.stack(configs, lattice)
  stacked = _Layer(staples.stack(configs, lattice), m.sites, m.frozen.reshape(*m.frozen.shape[:2], -1))
  return jax.tree.map(jnp.asarray, stacked)


def _arrange(each: Array, shared: Array) -> Coefficients:
  """Coefficients from c [K, n] and d [6, n]."""
  of_each = lambda d: jnp.repeat(d[None], len(each), axis=0)
  return Coefficients(
    jnp.concatenate([each, jnp.zeros_like(each[:1])]),
    jnp.concatenate([of_each(shared[3]), shared[:1]]),
    jnp.concatenate([of_each(shared[4]), shared[2:3]]),
    jnp.concatenate([of_each(shared[5]), shared[1:2]]),
  )


def _network(config: Config, nc: int, lattice: sites.Extents) -> conv.Net | None:
  """From `_features` to one coefficient for each staple and the shared ones."""
  if not config.networks:
    return None
  nd = len(lattice)
  num_staples = 2 * (nd - 1)
  inputs = nd * (nd - 1) + num_staples * (num_staples - 1)
  return conv.make(config.net, inputs, num_staples + NUM_SHARED, lattice, remat=False)


def _features(v: Array, lattice: sites.Extents, m: _Layer, around: Array) -> Array:
  """tr P of frozen plaquettes and, at active links, tr A_i A_j^dag of staples, i > j: real, then imaginary parts."""
  a, b, c, d = loops.at_planes(v, lattice)
  top, bottom = fusion.materialise((group.mul(a, b), group.mul(d, c)))
  plaquettes = jnp.where(m.frozen, jnp.sum(top * bottom.conj(), axis=(1, 2)), 0)
  pairs = [(i, j) for i in range(len(around)) for j in range(i)]
  products = jnp.stack([jnp.sum(around[i] * around[j].conj(), axis=(0, 1)) for i, j in pairs])
  spread = jnp.zeros((len(pairs), v.shape[-1]), v.dtype).at[:, m.sites].set(products)
  every = jnp.concatenate([plaquettes, spread])
  return jnp.concatenate([every.real, every.imag])


def _limit(c: Coefficients, nc: int) -> Coefficients:
  """The coefficients, scaled down where |dZ/dU| might exceed 0.9.

  Under U -> (1 + w) U a loop L, with |L| <= b as a matrix and hence |tr L| <= Nc b, changes by |dL| <= b |w|, L^2 by
  2 b^2 |w|, and tr L L by 2 Nc b^2 |w|. b is one for plaquettes and K for X. The projection TA makes nothing longer.
  """
  count = len(c.linear) - 1
  b = jnp.asarray([1.0] * count + [float(count)], c.linear.dtype)[:, None]
  bounds = (b, 2 * b**2, 2 * nc * b**2, 2 * nc * b**2)
  total = sum(jnp.sum(bound * jnp.abs(x), axis=0) for bound, x in zip(bounds, c))
  factor = _MOST / jnp.maximum(total, _MOST)
  return Coefficients(*(factor * x for x in c))


class _Sums(NamedTuple):
  """What Z and its derivative are made of: L_1, .., L_K, X [K + 1, Nc, Nc, n], or without X at first order, and Y."""

  loops: Array
  y: Array


def _sums(u: Array, around: Array, c: Coefficients, order: int) -> _Sums:
  each = group.mul(jnp.broadcast_to(u, around.shape), around)
  if order == 1:
    return _Sums(each, jnp.sum(c.linear[:-1, None, None] * each, axis=0))
  found = fusion.materialise(jnp.concatenate([each, jnp.sum(each, axis=0)[None]]))
  squares, t = fusion.materialise((group.mul(found, found), group.trace(found)))
  factor = c.linear + c.trace * t + c.conjugate * t.conj()
  y = jnp.sum(factor[:, None, None] * found + c.square[:, None, None] * squares, axis=0)
  return fusion.materialise(_Sums(found, y))


def _exponent(u: Array, around: Array, c: Coefficients, order: int) -> Array:
  """Z at links u [Nc, Nc, n]."""
  return group.project(_sums(u, around, c, order).y)


class _Derivative(NamedTuple):
  """W = e^Z, and E [dim, dim, n]: under U -> (1 + w) U, W^dag dU' U^dag = (1 + E) w in coordinates."""

  turn: Array
  e: Array


def _derivative(u: Array, around: Array, c: Coefficients, order: int) -> _Derivative:
  nc = u.shape[0]
  s = _sums(u, around, c, order)
  z = group.project(s.y)
  ad, dz = fusion.materialise((algebra.adjoint_action(group.to_coordinates(z), nc), _exponent_derivative(s, c, order)))
  return fusion.materialise(_Derivative(exponential.exp(z), group.mul(algebra.dexp(-ad), dz)))


def _exponent_derivative(s: _Sums, c: Coefficients, order: int) -> Array:
  """dZ^b/dw^a = -2 Re tr T^b dY(w = T^a), [dim, dim, n].

  dY = w Y + sum over loops of square L w L + (trace tr w L + conjugate (tr w L)^*) L: sums over loops are matrix products.
  """
  nc, n = s.y.shape[0], s.y.shape[-1]
  t = group.basis(nc)
  left = jnp.asarray(np.einsum("bki,aij->bajk", t, t), s.y.dtype)
  found = jnp.einsum("bajk,jkn->ban", left, s.y).real
  if order == 2:
    flat = s.loops.reshape(-1, nc * nc, n)
    between = group.mul(jnp.swapaxes(c.square[:, None] * flat, 0, 1), flat)
    middle = jnp.asarray(np.einsum("bli,ajk->baijkl", t, t).reshape(len(t), len(t), *flat.shape[1:2] * 2), s.y.dtype)
    found = found + jnp.einsum("baij,ijn->ban", middle, fusion.materialise(between)).real
    # tr T^a L
    traced = jnp.einsum("aij,kjin->kan", jnp.asarray(t, s.y.dtype), s.loops)
    weighted = c.trace[:, None] * traced + c.conjugate[:, None] * traced.conj()
    found = found + group.mul(jnp.swapaxes(traced, 0, 1), weighted).real
  return -2 * found


def _forward(active: staples.Active, c: Coefficients, order: int) -> tuple[Array, Array]:
  """U' and ln det of all active links."""
  turn, e = _derivative(active.links, active.staples, c, order)
  unit = jnp.eye(len(e), dtype=e.dtype)[..., None]
  logdet = algebra.eliminate(unit + e, jnp.zeros_like(e[0])).logdet
  return group.mul(turn, active.links), jnp.sum(logdet)


def _backward(active: staples.Active, c: Coefficients, order: int) -> tuple[Array, Array]:
  """U from U', and minus the ln det there. First derivatives are those of the inverse map; second ones are not.

  The fixed point stops at the square root of rounding, and one step of Newton's method squares what is left; since the
  step's matrix is held fixed, derivatives through it are those of the implicit function, and none go through the loop.
  """
  image, around = active.links, active.staples
  near = lax.stop_gradient(_fixed_point(*lax.stop_gradient((image, around, c)), order))
  turn, e = _derivative(near, around, c, order)
  unit = jnp.eye(len(e), dtype=e.dtype)[..., None]
  # ln (U' f(near)^dag), small, so that TA is the logarithm up to the third order; turned back by W as E is.
  miss = group.project(group.mul(image, group.adjoint(group.mul(turn, near))))
  miss = group.mul(group.adjoint(turn), group.mul(miss, turn))
  step = algebra.eliminate(lax.stop_gradient(unit + e), group.to_coordinates(miss)).solution
  found = group.mul(exponential.exp(group.from_coordinates(step, image.shape[0])), near)
  e = _derivative(found, around, c, order).e
  return found, -jnp.sum(algebra.eliminate(unit + e, jnp.zeros_like(e[0])).logdet)


def _fixed_point(image: Array, around: Array, c: Coefficients, order: int) -> Array:
  """U with |e^Z U - U'| at most sqrt(eps), by U <- e^{-Z(U)} U'; NaN where that was not reached."""
  tolerance = jnp.finfo(image.dtype).eps ** 0.5

  def more(state: tuple[Array, Array, Array]) -> Array:
    count, _, change = state
    return (count < _ITERATIONS) & (change > tolerance)

  def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    count, u, _ = state
    new = group.mul(exponential.exp(-_exponent(u, around, c, order)), image)
    return count + 1, new, jnp.max(jnp.abs(new - u))

  first = jnp.asarray(jnp.inf, image.real.dtype)
  _, u, change = lax.while_loop(more, step, (jnp.zeros((), jnp.int32), image, first))
  return jnp.where(change <= tolerance, u, jnp.nan)
