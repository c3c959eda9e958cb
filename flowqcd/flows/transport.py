r"""A parallel-transport layer of spinor fields, with its derivative by hand; arXiv:2208.03832, sec. 3.1.

  psi'_i(x) = sum_j [W0_ij(x) psi_j(x) + sum_{+-mu} W^{+-mu}_ij(x) (1 -+ gamma_mu) (T_{+-mu} psi_j)(x)],   W real.

With h = P psi the half spinors of all hops, S their moves to the neighbours, L the links and R = P^T what makes spinors of
half spinors again, it is  psi' = W0 psi + R W L S P psi.  W acts on copies and L on colours, so that they commute: W goes
first where there are fewer copies after it.

Fields are *split* here: real arrays whose first axis has the real and the imaginary part. Then everything is a product of
real arrays over sites, which vectorises twice as well as complex arithmetic on CPUs, and every adjoint is a transpose.

The derivative by hand is what XLA does not find: each of the factors is written to memory once and read by all that need
it, in both directions, where fused factors would be computed again for each of their readers.
"""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from flowqcd.lattice import fusion, linear, precision, sites, spin
from flowqcd.types import Array


def split(psi: Array) -> Array:
  """Real and imaginary part on a new first axis: complex [...] -> real [2, ...]."""
  return jnp.stack([psi.real, psi.imag])


def join(x: Array) -> Array:
  """The complex array of a split one: real [2, ...] -> complex [...]."""
  return jax.lax.complex(x[0], x[1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def layer(psi: Array, weights: Array, links: Array, lattice: sites.Extents) -> Array:
  """psi' of the layer above.

  psi: split copies [2, J, Ns, Nc, V]. weights: [1 + 2 Nd, I, J, V], W0 and then the forward and the backward hop of each
  direction. links: split, of `dirac.hopping_links`, [2, 2 Nd, Nc, Nc, V]. Returns [2, I, Ns, Nc, V].
  """
  return _apply(psi, weights, links, lattice)


def _layer_jvp(lattice: sites.Extents, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  moving = [i for i, dx in enumerate(tangents) if not isinstance(dx, SymbolicZero)]

  def change(at: tuple[Array, ...], moved: tuple[Array, ...]) -> tuple[Array]:
    psi, weights, links = at
    still = jnp.concatenate([jnp.zeros_like(weights[:1]), weights[1:]])  # W0 psi has no links.
    parts = (
      lambda dx: layer(dx, weights, links, lattice),
      lambda dx: layer(psi, dx, links, lattice),
      lambda dx: layer(psi, still, dx, lattice),
    )
    return (precision.added(parts[i](dx) for i, dx in zip(moving, moved)),)

  def by_hand(at: tuple[Array, ...], g: tuple[Array, ...]) -> tuple[Array, ...]:
    every = _backward(lattice, at, g[0])
    return tuple(every[i] for i in moving)

  return layer(*primals, lattice), linear.call(change, by_hand, primals, [tangents[i] for i in moving])[0]


# Zeros as arrays would be stored for every layer of a flow.
layer.defjvp(_layer_jvp, symbolic_zeros=True)


def _apply(psi: Array, weights: Array, links: Array, lattice: sites.Extents) -> Array:
  psi, weights = fusion.materialise(psi), fusion.materialise(weights)
  _, inner = _arriving(psi, weights, links, lattice)
  outer = fusion.materialise(_multiply(links, inner) if _mixes_first(weights) else _mix(weights[1:], inner))
  return _mix(weights[:1], psi[:, None])[:, 0] + _whole(outer)


def _arriving(psi: Array, weights: Array, links: Array, lattice: sites.Extents) -> tuple[Array, Array]:
  """S P psi, and that after the first of W and L."""
  moved = fusion.materialise(_gather(psi, lattice))
  return moved, fusion.materialise(_mix(weights[1:], moved) if _mixes_first(weights) else _multiply(links, moved))


def _backward(lattice: sites.Extents, saved: tuple, g: Array) -> tuple[Array, Array, Array]:
  psi, weights, links = saved
  moved, inner = _arriving(psi, weights, links, lattice)
  g = fusion.materialise(g)
  outer, back = fusion.materialise(_halves(g)), weights.swapaxes(1, 2)
  if _mixes_first(weights):
    by_inner = fusion.materialise(_multiply(links, outer, transposed=True))
    by_moved = fusion.materialise(_mix(back[1:], by_inner))
    by_links, by_weights = _by_links(outer, inner), _by_weights(by_inner, moved)
  else:
    by_inner = fusion.materialise(_mix(back[1:], outer))
    by_moved = fusion.materialise(_multiply(links, by_inner, transposed=True))
    by_links, by_weights = _by_links(by_inner, moved), _by_weights(outer, inner)
  by_psi = _mix(back[:1], g[:, None])[:, 0] + _scatter(by_moved, lattice)
  # Sums fused into what puts them beside each other would be computed element by element.
  by_still = fusion.materialise(_by_weights(g[:, None], psi[:, None]))
  return by_psi, jnp.concatenate([by_still, fusion.materialise(by_weights)]), fusion.materialise(by_links)


def _mixes_first(weights: Array) -> bool:
  return weights.shape[1] < weights.shape[2]


def _halves(psi: Array) -> Array:
  """P: up -+ s_mu down for the hops of (1 -+ gamma_mu). [2, J, Ns, Nc, V] -> [2, 2 Nd, J, Ns/2, Nc, V]."""
  half = psi.shape[2] // 2
  up, down = psi[:, :, :half], psi[:, :, half:]
  rotated = [_spin(s, down) for s in spin.chiral_blocks(_dimensions(psi.shape[2]))]
  return jnp.stack([up - sign * r for r in rotated for sign in (1, -1)], axis=1)


def _whole(halves: Array) -> Array:
  """R, the transpose of P: [2, 2 Nd, J, Ns/2, Nc, V] -> [2, J, Ns, Nc, V]."""
  difference = halves[:, 1::2] - halves[:, 0::2]
  blocks = spin.chiral_blocks(halves.shape[1] // 2)
  down = sum(_spin(s.conj().T, difference[:, mu]) for mu, s in enumerate(blocks))
  return jnp.concatenate([sum(halves[:, i] for i in range(halves.shape[1])), down], axis=2)


def _dimensions(components: int) -> int:
  return 2 * (components.bit_length() - 1)  # Ns = 2^(nd/2).


def _spin(matrix: np.ndarray, x: Array) -> Array:
  """A matrix of entries 0, +-1, +-i on the spin components of a split field [2, J, spin, ...]."""
  rows = [sum(_times(z, x[:, :, j]) for j, z in enumerate(row) if z) for row in matrix]
  return jnp.stack(rows, axis=2)


def _times(z: complex, x: Array) -> Array:
  """z x of a split field, for z = +-1, +-i."""
  # Python's numbers leave the precision alone; NumPy's would widen it.
  if not z.imag:
    return float(z.real) * x
  return float(z.imag) * jnp.stack([-x[1], x[0]])


def _gather(psi: Array, lattice: sites.Extents) -> Array:
  """S P: half spinors of all hops at their targets. [2, J, Ns, Nc, V] -> [2, 2 Nd, J, Ns/2, Nc, V]."""
  padded, half = fusion.materialise(_pad(psi, psi.shape[-1])), psi.shape[2] // 2

  def arriving(i: int, s: np.ndarray) -> Array:
    x = _neighbour(padded, lattice, i // 2, _sign(i))
    return x[:, :, :half] - _sign(i) * _spin(s, x[:, :, half:])

  blocks = spin.chiral_blocks(len(lattice))
  return jnp.stack([arriving(i, blocks[i // 2]) for i in range(2 * len(lattice))], axis=1)


def _scatter(moved: Array, lattice: sites.Extents) -> Array:
  """R S^T, the transpose of S P: [2, 2 Nd, J, Ns/2, Nc, V] -> [2, J, Ns, Nc, V]."""
  padded = fusion.materialise([_pad(moved[:, i], moved.shape[-1]) for i in range(2 * len(lattice))])
  return _whole(jnp.stack([_neighbour(x, lattice, i // 2, -_sign(i)) for i, x in enumerate(padded)], axis=1))


def _sign(i: int) -> int:
  """Of hop i: forward hops come first in each direction."""
  return 1 - 2 * (i % 2)


def _pad(x: Array, width: int) -> Array:
  """[..., V] -> [..., width + V + width], periodic."""
  return jnp.concatenate([x[..., x.shape[-1] - width :], x, x[..., :width]], axis=-1)


def _neighbour(padded: Array, lattice: sites.Extents, mu: int, sign: int) -> Array:
  """`sites.shift` of a padded field: one of two windows at each site, both contiguous, and so read as vectors."""
  volume, stride = math.prod(lattice), math.prod(lattice[mu + 1 :])
  width = (padded.shape[-1] - volume) // 2
  last = sites.coordinates(lattice)[mu].ravel() == (lattice[mu] - 1 if sign > 0 else 0)
  window = lambda steps: padded[..., width + steps : width + steps + volume]
  return jnp.where(last, window(-sign * stride * (lattice[mu] - 1)), window(sign * stride))


def _multiply(links: Array, x: Array, transposed: bool = False) -> Array:
  """L or its transpose on colours: links [2, 2 Nd, Nc, Nc, V], x [2, 2 Nd, J, half, Nc, V]."""
  real, imag = links if not transposed else (links[0].swapaxes(1, 2), -links[1].swapaxes(1, 2))
  real, imag = real[:, None, None], imag[:, None, None]
  column = lambda k: (real[..., k, :], imag[..., k, :], x[0][..., None, k, :], x[1][..., None, k, :])
  columns = [column(k) for k in range(links.shape[2])]
  return jnp.stack(
    [sum(a * c - b * d for a, b, c, d in columns), sum(a * d + b * c for a, b, c, d in columns)],
  )


def _mix(weights: Array, x: Array) -> Array:
  """W on copies: weights [D, I, J, V], x [2, D, J, ..., V] -> [2, D, I, ..., V]."""
  return precision.added(weights[:, :, j, None, None] * x[:, :, j, None] for j in range(x.shape[2]))


def _by_weights(g: Array, x: Array) -> Array:
  """Derivative of <g, W x> by W: g [2, D, I, ..., V], x [2, D, J, ..., V] -> [D, I, J, V]."""
  terms = itertools.product(range(2), range(x.shape[3]), range(x.shape[4]))
  return precision.added(g[p, :, :, None, s, c] * x[p, :, None, :, s, c] for p, s, c in terms)


def _by_links(g: Array, x: Array) -> Array:
  """Derivative of <g, L x> by L: [2, 2 Nd, J, half, Nc, V] both -> [2, 2 Nd, Nc, Nc, V]."""
  real = imag = 0.0
  for j in range(x.shape[2]):
    for s in range(x.shape[3]):
      a, b = g[:, :, j, s, :, None], x[:, :, j, s, None]
      real += a[0] * b[0] + a[1] * b[1]
      imag += a[1] * b[0] - a[0] * b[1]
  return jnp.stack([real, imag])
