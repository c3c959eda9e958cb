"""Gauge-equivariant spectral coupling layers: the marginal flow of arXiv:2208.03832, sec. 3.1, after arXiv:2008.05456.

A layer updates the links of one mask. Each active link starts a plaquette P = U A of its own, whose other links A are
frozen; the eigenphases of P move, P -> P', by monotone splines of the box coordinates of its conjugacy class, and
U' = P' P^dag U. Splines come from convolutional networks that read the traces of frozen plaquettes. So the Jacobian is
triangular, and each active link contributes the Jacobian of its class (see `spectral`).

For SU(3) network 0 makes the spline of w; network 1 reads in addition the new w and makes the spline of r. In both
directions of the flow the networks see the same numbers, so the inverse costs what the flow costs.

With `loops = "staples"` A is a sum of all 2(Nd-1) staples of the link with learned weights, A = W |A|, and P = U W: the
link's conditional law e^{(beta/Nc) Re tr U A} is a class function of P where the singular values of A coincide. W takes the
place of the frozen links above, and the networks see the invariants of A too. In the spirit of arXiv:2305.02402.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flowqcd.flows import conv, layers, masks, spectral, spline, staples
from flowqcd.lattice import fusion, group, loops, sites
from flowqcd.types import Array, Flow, Key, Params


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """A flow of spectral coupling layers; the defaults are the paper's."""

  layers: int = _field(48, "Coupling layers.")
  bins: int = _field(16, "Bins of each spline; networks have 3 bins + 1 output channels.")
  width: int = _field(4, "Period of the masks; extents are multiples of it.")
  loops: str = _field("plaquette", "What starts with an active link: a plaquette of its own, or all staples together.")
  remat: bool = _field(False, "Recompute layers in the backward pass: a third more work, memory for links only.")
  net: conv.Config = conv.Config()

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if self.layers < 1 or self.bins < 2:
      raise ValueError(f"layers must be at least 1 and bins at least 2, not {self.layers} and {self.bins}")
    if self.loops not in ("plaquette", "staples"):
      raise ValueError(f"loops must be plaquette or staples, not '{self.loops}'")


class _Layer(NamedTuple):
  """A layer's masks as data, and where its staples are, if it looks at them."""

  masks: masks.Masks
  table: staples.Table | None


class _Active(NamedTuple):
  """What a layer works on: loops P that start with the active links [Nc, Nc, n], features [channels, V]."""

  loops: Array
  features: Array


class _Class(NamedTuple):
  """New phases of the active plaquettes [Nc, n] and the log Jacobian of forward direction, summed over them."""

  theta: Array
  logdet: Array


def make(config: Config, nc: int, lattice: sites.Extents) -> Flow:
  """The flow on links [Nd, Nc, Nc, *L]. Parameters: a tuple of networks' trees with a leading axis of layers, and, for
  staples, of the logarithms of their weights [layers, 2(Nd-1)].

  They do not depend on the extents: what was trained on one lattice runs on any other that the masks fit. Raises
  MaskError where extents and width do not fit, ShapeError for links of another group or lattice.
  """
  lattice, nets = tuple(lattice), networks(config, nc, lattice)
  nd, count = len(lattice), len(nets)

  def init(key: Key) -> Params:
    keys = jax.random.split(key, (count, config.layers))
    params = tuple(jax.vmap(net.init)(k) for net, k in zip(nets, keys))
    return params if config.loops == "plaquette" else (*params, jnp.zeros((config.layers, 2 * (nd - 1))))

  def update(v: Array, params: Params, layer: _Layer, inverse: bool) -> tuple[Array, Array]:
    return _update(v, lattice, layer, nets, params, inverse)

  return layers.make(init, update, _layers(config, lattice), nc, lattice, config.remat)


def _layers(config: Config, lattice: sites.Extents) -> _Layer:
  """Of all layers, with a leading axis."""
  configs = masks.layers(config.layers, len(lattice), config.width)
  if config.loops == "plaquette":
    return jax.tree.map(jnp.asarray, _Layer(masks.stack(configs, lattice), None))
  return jax.tree.map(jnp.asarray, _Layer(masks.stack(configs, lattice), staples.stack(configs, lattice)))


def networks(config: Config, nc: int, lattice: sites.Extents) -> tuple[conv.Net, ...]:
  """The networks of a layer, one for each box coordinate: from invariants and coordinates moved before to splines."""
  planes = len(lattice) * (len(lattice) - 1) // 2
  outputs = spline.num_parameters(config.bins)
  inputs = 2 * planes + (_num_invariants(nc) if config.loops == "staples" else 0)
  return tuple(
    conv.make(config.net, inputs + k, outputs, lattice, remat=not config.remat)
    for k in range(spectral.num_coordinates(nc))
  )


def _update(
  v: Array, lattice: sites.Extents, layer: _Layer, nets: tuple[conv.Net, ...], params: Params, inverse: bool
) -> tuple[Array, Array]:
  """One layer on flat links v [Nd, Nc, Nc, V], or its inverse, and the log Jacobian of what was done."""
  m = layer.masks
  active = _look(v, lattice, m) if layer.table is None else _look_around(v, lattice, m, layer.table, params[len(nets)])
  theta = spectral.eigenphases(active.loops)

  def splines(k: int, moved: list[Array]) -> spline.Spline:
    # Coordinates already moved enter as fields that are zero off the active links.
    extra = [_spread(t[None], active.features, m) for t in moved]
    parameters = nets[k].apply_at(params[k], jnp.concatenate([active.features, *extra]), m.sites)
    return spline.make(parameters, circular=v.shape[1] == 1)

  new, logdet = _move(theta, splines, inverse)
  link = v[m.direction]
  turned = group.mul(spectral.transport(active.loops, theta, new), link[..., m.sites])
  return v.at[m.direction].set(link.at[..., m.sites].set(turned)), -logdet if inverse else logdet


def _spread(x: Array, like: Array, m: masks.Masks) -> Array:
  """A field that is x [channels, n] at the active links and zero elsewhere, for networks: [channels, V]."""
  return jnp.zeros((len(x), like.shape[-1]), x.dtype).at[:, m.sites].set(x)


class _Halves(NamedTuple):
  """Plaquettes as top times bottom^dag [planes, Nc, Nc, V], and traces of frozen ones: real, then imaginary parts."""

  top: Array
  bottom: Array
  traces: Array


def _halves(v: Array, lattice: sites.Extents, m: masks.Masks) -> _Halves:
  a, b, c, d = loops.at_planes(v, lattice)
  # P = a b (d c)^dag; the trace needs no third product.
  top, bottom = fusion.materialise((group.mul(a, b), group.mul(d, c)))
  traces = jnp.where(m.frozen.reshape(len(a), -1), jnp.sum(top * bottom.conj(), axis=(1, 2)), 0)
  return _Halves(top, bottom, jnp.concatenate([traces.real, traces.imag]))


def _look(v: Array, lattice: sites.Extents, m: masks.Masks) -> _Active:
  """Active plaquettes, and the unnormalised traces of frozen ones."""
  top, bottom, traces = _halves(v, lattice, m)
  here, there = top[m.plane][..., m.sites], bottom[m.plane][..., m.sites]
  first = jnp.where(m.flipped, there, here)
  second = jnp.where(m.flipped, here, there)
  return _Active(fusion.materialise(group.mul(first, group.adjoint(second))), traces)


def _look_around(v: Array, lattice: sites.Extents, m: masks.Masks, table: staples.Table, weights: Array) -> _Active:
  """U W with the group part W of the staples' weighted mean; traces of frozen plaquettes and invariants of that mean."""
  links, around = staples.gather(v, table)
  mean = fusion.materialise(jnp.tensordot(jax.nn.softmax(weights).astype(v.dtype), around, 1))
  traces = _halves(v, lattice, m).traces
  features = jnp.concatenate([traces, _spread(_invariants(mean), traces, m)])
  return _Active(fusion.materialise(group.mul(links, group.polar(mean))), features)


def _num_invariants(nc: int) -> int:
  return 1 if nc == 1 else 4


def _invariants(a: Array) -> Array:
  """Of A -> g A h^dag: tr B and tr B^2 for B = A A^dag, real and imaginary part of det A; |A|^2 alone for U(1). [m, n]."""
  square = group.mul(a, group.adjoint(a))
  first = group.trace(square).real
  if a.shape[0] == 1:
    return first[None]
  second, d = jnp.sum(square.real**2 + square.imag**2, axis=(0, 1)), group.det(a)
  return jnp.stack([first, second, d.real, d.imag])


def _move(theta: Array, splines: Callable[[int, list[Array]], spline.Spline], inverse: bool) -> _Class:
  """Move the classes of phases theta [Nc, n]; splines: (coordinate, new values of those before it) -> its spline.

  With x the coordinates before and y those after the *forward* map, the log Jacobian is that of x -> y in both directions.
  """
  nc, t = theta.shape[0], spectral.to_box(theta)
  x, y, logderiv, ends = [], [], 0.0, []
  for k, t_k in enumerate(t):
    s = splines(k, y)
    forward, backward = (
      (spline.circular_forward, spline.circular_inverse) if nc == 1 else (spline.forward, spline.inverse)
    )
    value = backward(s, t_k) if inverse else forward(s, t_k)
    before, after = (value.y, t_k) if inverse else (t_k, value.y)
    logderiv = logderiv + (-value.logderiv if inverse else value.logderiv)
    ends.append(spline.end_ratios(s, before, after) if nc > 1 else (0 * t_k, 0 * t_k))
    x.append(before)
    y.append(after)
  end = spectral.End(jnp.stack([low for low, _ in ends]), jnp.stack([high for _, high in ends]))
  logdet = logderiv + spectral.log_volume_ratio(jnp.stack(x), jnp.stack(y), end, nc)
  return _Class(spectral.from_box(jnp.stack(x if inverse else y), nc), jnp.sum(logdet))
