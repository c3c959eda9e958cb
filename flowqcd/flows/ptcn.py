r"""Pseudofermion couplings of parallel-transport convolutional networks; arXiv:2208.03832, sec. 3.1, after 2207.08945.

A layer of a network maps copies j of a spinor field to copies i,

  psi'_i(x) = sum_j [W0_ij(x) psi_j(x) + sum_{+-mu} W^{+-mu}_ij(x) (1 -+ gamma_mu) (T_{+-mu} psi_j)(x)],

T_mu the parallel transport from the neighbour, boundary phase included, W real and gauge invariant: the outputs of a
context network that reads plaquettes and coordinates. Linear in psi, so a network of several layers is a gauge-covariant
matrix. With a projector Pi and Pib = 1 - Pi, a coupling is

  phi' = Pib phi + e^s Pi phi + Pi PTCN[Pib phi],   log |det| = 2 sum_x s(x) rank(Pi_x).

Hops carry the spin structure of the Wilson operator: with none, Pi PTCN Pib would vanish for spin projectors.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flowqcd.flows import conv, transport
from flowqcd.lattice import checkerboard, colouring, loops, sites, spin
from flowqcd.theory import dirac
from flowqcd.types import AnyArray, Array, Boundary, ConditionalFlow, Key, LinearFlow, Params


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """A flow of PTCN couplings; the defaults are the paper's."""

  layers: int = _field(36, "Coupling layers.")
  hops: int = _field(6, "Parallel-transport layers of each network, n_PT.")
  copies: int = _field(4, "Copies of the field inside a network, H.")
  trunk: int = _field(8, "Channels of the context network's shared part.")
  gain: float = _field(0.3, "Gain of the Xavier normal initialisation.")
  bias: float = _field(0.05, "Standard deviation of initial biases.")
  remat: bool = _field(True, "Recompute layers in the backward pass.")

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if min(self.layers, self.hops, self.copies, self.trunk) < 1:
      raise ValueError(
        f"layers, hops, copies and trunk must be positive, not {self.layers}, {self.hops}, {self.copies}, {self.trunk}"
      )


class Projectors(NamedTuple):
  """Pi of each layer: spin matrices [layers, Ns, Ns] times indicators of sites [layers, V]."""

  spin: AnyArray
  sites: AnyArray


def full(config: Config, nc: int, lattice: sites.Extents, boundary: Boundary | None = None) -> ConditionalFlow:
  """The paper's flow, on fields [Ns, Nc, V]: projectors (1 +- gamma_mu)/2, gamma_5 included, then the two parities."""
  lattice = tuple(lattice)
  return _make(config, nc, lattice, boundary, _projectors(config.layers, lattice, np.ones(_volume(lattice)), _parities))


def odd(config: Config, nc: int, lattice: sites.Extents, boundary: Boundary | None = None) -> ConditionalFlow:
  """The same on odd sites, fields [Ns, Nc, V/2]; networks hop over even sites, and sets of colours replace the parities.

  Raises ParityError for odd extents.
  """
  lattice = tuple(lattice)
  checkerboard.check(lattice)
  support = sites.parity(lattice).ravel()
  flow = _make(config, nc, lattice, boundary, _projectors(config.layers, lattice, support, _colour_sets))
  widen = lambda x: checkerboard.merge(jnp.zeros_like(x), x, lattice)
  narrow = lambda x: checkerboard.split(x, lattice)[1]

  def at(params: Params, u: Array) -> LinearFlow:
    inner = flow.at(params, u)
    return LinearFlow(
      lambda z: narrow(inner.forward(widen(z))), lambda phi: narrow(inner.inverse(widen(phi))), inner.logdet
    )

  return ConditionalFlow(flow.init, at)


def operations(config: Config, nc: int, lattice: sites.Extents) -> int:
  """Real operations of one draw, forward, by count: of all hops of all couplings, without the context network's.

  Per site and hop between J and I copies, for D = 2 Nd directions and Ns/2 half spinors: projection and reconstruction
  2 D Nc Ns/2 (J + 2 I), min(I, J) products with links of 8 Nc^2 - 2 Nc, and mixing of 4 I J real times complex numbers.
  """
  directions, half = 2 * len(lattice), spin.components(len(lattice)) // 2
  total = 0
  for _, out, into in _weights(config, len(lattice)):
    spinors = 2 * directions * half * nc * (into + 2 * out)
    products = directions * half * min(into, out) * (8 * nc**2 - 2 * nc)
    mixing = 4 * out * into * nc * (directions * half + 2 * half)
    total += spinors + products + mixing
  return config.layers * total * _volume(tuple(lattice))


def features(u: Array) -> Array:
  """What the context network reads, real [2 + Nd, V]: sums over planes of Re and Im tr P, and coordinates mod 4.

  The real part counts both orders of a plane's directions, as in the paper; the imaginary part, whose two orders cancel,
  counts mu < nu.
  """
  lattice = sites.extents(u)
  traces = jnp.sum(loops.plaquette_traces(u), axis=0)
  coordinates = sites.coordinates(lattice).reshape(len(lattice), -1) % 4
  flat = lambda x: x.reshape(1, -1)
  return jnp.concatenate([flat(2 * traces.real), flat(traces.imag), jnp.asarray(coordinates, u.real.dtype)])


def _make(
  config: Config, nc: int, lattice: sites.Extents, boundary: Boundary | None, projectors: Projectors
) -> ConditionalFlow:
  nd = len(lattice)
  boundary = dirac.check_boundary(boundary, nd)
  weights = _weights(config, nd)
  outputs = sum(math.prod(shape) for shape in weights) + 1
  net = conv.Config(hidden=(), gain=config.gain, bias=config.bias)
  trunk = conv.make(net, 2 + nd, config.trunk, lattice)
  head = conv.make(dataclasses.replace(net, widen_last=True), config.trunk, outputs, lattice)

  def init(key: Key) -> Params:
    first, rest = jax.random.split(key)
    return trunk.init(first), jax.vmap(head.init)(jax.random.split(rest, config.layers))

  def at(params: Params, u: Array) -> LinearFlow:
    sites.check(u, nc, lattice)
    context = jax.nn.elu(trunk.apply(params[0], features(u)))
    # Once for all draws at these links, and for both directions.
    outputs = lax.map(lambda p: jnp.tanh(head.apply(p, context)), params[1])
    links = transport.split(dirac.hopping_links(u, boundary))
    pis = Projectors(jnp.asarray(projectors.spin, u.dtype), jnp.asarray(projectors.sites, u.real.dtype))

    def couple(sign: int) -> Callable:
      def step(phi: Array, layer: tuple[Array, Projectors]) -> tuple[Array, None]:
        return _couple(phi, layer[1], links, lattice, layer[0], weights, sign), None

      return jax.checkpoint(step) if config.remat else step

    def run(phi: Array, sign: int) -> Array:
      return lax.scan(couple(sign), phi, (outputs, pis), reverse=sign < 0)[0]

    rank = nc * jnp.trace(pis.spin, axis1=1, axis2=2).real[:, None] * pis.sites
    return LinearFlow(lambda z: run(z, 1), lambda phi: run(phi, -1), 2 * jnp.sum(outputs[:, -1] * rank))

  return ConditionalFlow(init, at)


def _weights(config: Config, nd: int) -> list[tuple[int, int, int]]:
  """Shapes of each hop's weights but for the sites: (1 + 2 Nd, copies out, copies in)."""
  widths = [1, *[config.copies] * (config.hops - 1), 1]
  return [(1 + 2 * nd, b, a) for a, b in itertools.pairwise(widths)]


def _couple(
  phi: Array, pi: Projectors, links: Array, lattice: sites.Extents, outputs: Array, weights: list, sign: int
) -> Array:
  """One coupling on phi [Ns, Nc, V], or with sign -1 its inverse. outputs: of the context network [.., V], s the last."""
  project = lambda x: jnp.einsum("st,tiv->siv", pi.spin, x) * pi.sites
  # One array each: slices of a wide one would add up their derivatives on it, one after the other.
  *mixing, s = lax.split(outputs, [*(math.prod(shape) for shape in weights), 1])
  kept = project(phi)
  frozen = phi - kept
  copies = transport.split(frozen[None])
  for w, shape in zip(mixing, weights):
    copies = transport.layer(copies, w.reshape(*shape, -1), links, lattice)
  moved = project(transport.join(copies)[0])
  return frozen + (jnp.exp(s) * kept + moved if sign > 0 else jnp.exp(-s) * (kept - moved))


def _volume(lattice: sites.Extents) -> int:
  return int(np.prod(lattice))


def _projectors(
  layers: int, lattice: sites.Extents, support: np.ndarray, patterns: Callable[[sites.Extents], list[np.ndarray]]
) -> Projectors:
  """Rotates through spin projectors on the supported sites and then the patterns of sites, within the support."""
  nd = len(lattice)
  unit = np.eye(spin.components(nd))
  matrices = [(unit + sign * g) / 2 for g in [*spin.gammas(nd), spin.gamma5(nd)] for sign in (1, -1)]
  cycle = [(m, support) for m in matrices] + [(unit, support * p) for p in patterns(lattice)]
  chosen = [cycle[i % len(cycle)] for i in range(layers)]
  return Projectors(np.stack([m for m, _ in chosen]), np.stack([s for _, s in chosen]))


def _parities(lattice: sites.Extents) -> list[np.ndarray]:
  odd_sites = sites.parity(lattice).ravel()
  return [1 - odd_sites, odd_sites]


def _colour_sets(lattice: sites.Extents) -> list[np.ndarray]:
  """Halves of the colours by each binary digit, so that any two colours are told apart by some pattern."""
  colours = colouring.two_hop(lattice)
  digits = int(colours.max()).bit_length()
  found = []
  for digit, value in itertools.product(range(digits), (0, 1)):
    with jax.ensure_compile_time_eval():
      chosen = jnp.asarray((colours >> digit) % 2 == value, float)
      found.append(np.asarray(checkerboard.merge(jnp.zeros_like(chosen), chosen, lattice)))
  return found
