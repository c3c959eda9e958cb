"""Gauge-equivariant spectral coupling layers: the marginal flow of arXiv:2208.03832, sec. 3.1, after arXiv:2008.05456.

A layer updates the links of one mask. Each active link starts a plaquette P = U A of its own, whose other links A are
frozen; the eigenphases of P move, P -> P', by monotone splines of the box coordinates of its conjugacy class, and
U' = P' P^dag U. Splines come from convolutional networks that read the traces of frozen plaquettes. So the Jacobian is
triangular, and each active link contributes the Jacobian of its class (see `spectral`).

For SU(3) network 0 makes the spline of w; network 1 reads in addition the new w and makes the spline of r. In both
directions of the flow the networks see the same numbers, so the inverse costs what the flow costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.flows import conv, masks, spectral, spline
from flowqcd.lattice import fusion, group, loops, sites
from flowqcd.types import Array, Flow, FlowResult, Key, Params


def _field(default: int | bool, doc: str):
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """A flow of spectral coupling layers; the defaults are the paper's."""

  layers: int = _field(48, "Coupling layers.")
  bins: int = _field(16, "Bins of each spline; networks have 3 bins + 1 output channels.")
  width: int = _field(4, "Period of the masks; extents are multiples of it.")
  remat: bool = _field(False, "Recompute layers in the backward pass: a third more work, memory for links only.")
  net: conv.Config = conv.Config()

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if self.layers < 1 or self.bins < 2:
      raise ValueError(f"layers must be at least 1 and bins at least 2, not {self.layers} and {self.bins}")


class _Active(NamedTuple):
  """What a layer works on: plaquettes that start with the active links [Nc, Nc, n], features [2 planes, V]."""

  plaquettes: Array
  features: Array


class _Class(NamedTuple):
  """New phases of the active plaquettes [Nc, n] and the log Jacobian of forward direction, summed over them."""

  theta: Array
  logdet: Array


def make(config: Config, nc: int, lattice: sites.Extents) -> Flow:
  """The flow on links [Nd, Nc, Nc, *L]. Parameters: a tuple of networks' trees with a leading axis of layers.

  They do not depend on the extents: what was trained on one lattice runs on any other that the masks fit. Layers are one
  scan with masks as data, so that the compiled program holds one layer however many there are. Raises MaskError where
  extents and width do not fit, ShapeError for links of another group or lattice.
  """
  lattice, nets = tuple(lattice), networks(config, nc, lattice)
  nd, count = len(lattice), len(nets)
  stacked = jax.tree.map(jnp.asarray, masks.stack(masks.layers(config.layers, nd, config.width), lattice))

  def init(key: Key) -> Params:
    keys = jax.random.split(key, (count, config.layers))
    return tuple(jax.vmap(net.init)(k) for net, k in zip(nets, keys))

  def layer(inverse: bool) -> Callable:
    def step(carry: tuple[Array, Array], inputs: tuple[Params, masks.Masks]) -> tuple[tuple[Array, Array], None]:
      (v, total), (params, m) = carry, inputs
      v, logdet = _update(v, lattice, m, nets, params, inverse)
      return (v, total + logdet), None

    return jax.checkpoint(step) if config.remat else step

  def run(params: Params, u: Array, inverse: bool) -> FlowResult:
    if sites.extents(u) != lattice or u.shape[1] != nc:
      raise sites.ShapeError(f"this flow is for Nc = {nc} on the lattice {lattice}, not for links {u.shape}")
    start = sites.flatten(u), jnp.zeros((), u.real.dtype)
    (v, logdet), _ = lax.scan(layer(inverse), start, (params, stacked), reverse=inverse)
    return FlowResult(sites.unflatten(v, lattice), logdet)

  return Flow(
    init=init,
    forward=lambda params, z: run(params, z, False),
    inverse=lambda params, u: run(params, u, True),
  )


def networks(config: Config, nc: int, lattice: sites.Extents) -> tuple[conv.Net, ...]:
  """The networks of a layer, one for each box coordinate: from traces and coordinates moved before to splines."""
  planes = len(lattice) * (len(lattice) - 1) // 2
  outputs = spline.num_parameters(config.bins)
  return tuple(
    conv.make(config.net, 2 * planes + k, outputs, lattice, remat=not config.remat)
    for k in range(spectral.num_coordinates(nc))
  )


def _update(
  v: Array, lattice: sites.Extents, m: masks.Masks, nets: tuple[conv.Net, ...], params: Params, inverse: bool
) -> tuple[Array, Array]:
  """One layer on flat links v [Nd, Nc, Nc, V], or its inverse, and the log Jacobian of what was done."""
  active = _look(v, lattice, m)
  theta = spectral.eigenphases(active.plaquettes)

  def splines(k: int, moved: list[Array]) -> spline.Spline:
    # Coordinates already moved enter as fields that are zero off the active links.
    extra = [jnp.zeros_like(active.features[0]).at[m.sites].set(t)[None] for t in moved]
    parameters = nets[k].apply_at(params[k], jnp.concatenate([active.features, *extra]), m.sites)
    return spline.make(parameters, circular=v.shape[1] == 1)

  new, logdet = _move(theta, splines, inverse)
  link = v[m.direction]
  turned = group.mul(spectral.transport(active.plaquettes, theta, new), link[..., m.sites])
  return v.at[m.direction].set(link.at[..., m.sites].set(turned)), -logdet if inverse else logdet


def _look(v: Array, lattice: sites.Extents, m: masks.Masks) -> _Active:
  """Active plaquettes and the traces of frozen ones: real parts of all planes, then imaginary parts, unnormalised."""
  a, b, c, d = loops.at_planes(v, lattice)
  # P = a b (d c)^dag; the trace needs no third product, and the product itself only the active links.
  top, bottom = fusion.materialise((group.mul(a, b), group.mul(d, c)))
  traces = jnp.where(m.frozen.reshape(len(a), -1), jnp.sum(top * bottom.conj(), axis=(1, 2)), 0)
  here, there = top[m.plane][..., m.sites], bottom[m.plane][..., m.sites]
  first = jnp.where(m.flipped, there, here)
  second = jnp.where(m.flipped, here, there)
  loop = group.mul(first, group.adjoint(second))
  return _Active(fusion.materialise(loop), jnp.concatenate([traces.real, traces.imag]))


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
