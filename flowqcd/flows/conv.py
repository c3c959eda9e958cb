"""Separable periodic convolutional networks on a lattice; arXiv:2208.03832, sec. 3.1.

A block is one 1-D convolution along each direction mu in turn, y(s) = sum_j W_j^T x(s + (j - kernel // 2) mu), and a bias
after the last; leaky ReLUs stand between blocks.

Since nothing nonlinear stands within a block, it is computed in momentum space, a pair of directions at a time. The real
Fourier functions on the P sites of a pair, two by two (cos kx and sin kx), turn shifts into 2 x 2 blocks and both
convolutions into one matrix [2 Cout, 2 Cin] for each two functions: 2 Cin Cout multiplications a site instead of
2 kernel Cin Cout, and P (Cin + Cout) for the two changes of basis, all of it large matrix products.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.interpreters import ad, batching, mlir

from flowqcd.lattice.sites import Extents
from flowqcd.types import AnyArray, Array, Key, Params

Block = tuple[list[Array], Array]
"""Weights [kernel, Cin, Cout], one a direction, and the bias [Cout]."""


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Config:
  """A network; the defaults are the paper's."""

  hidden: tuple[int, ...] = _field((32, 32, 32), "Channels between the blocks.")
  kernel: int = _field(3, "Sites that a 1-D convolution sees; odd.")
  gain: float = _field(0.5, "Gain of the Xavier normal initialisation.")
  slope: float = _field(0.01, "Slope of the leaky ReLU at negative arguments.")
  bias: float = _field(0.0, "Standard deviation of initial biases.")
  widen_last: bool = _field(False, "Change the number of channels in the last direction of a block, not in the first.")

  def __post_init__(self) -> None:
    """Raise ValueError for impossible fields."""
    if any(c < 1 for c in self.hidden):
      raise ValueError(f"hidden must be positive numbers of channels, not {self.hidden}")
    if self.kernel < 1 or self.kernel % 2 == 0:
      raise ValueError(f"kernel must be odd and positive, not {self.kernel}")
    if not 0 < self.gain < math.inf:
      raise ValueError(f"gain must be positive, not {self.gain}")
    if not 0 <= self.bias < math.inf:
      raise ValueError(f"bias must not be negative, not {self.bias}")
    if not math.isfinite(self.slope):
      raise ValueError(f"slope must be finite, not {self.slope}")


class Net(NamedTuple):
  """init: key -> params. apply: (params, x [Cin, V]) -> [Cout, V] in x's precision, sites in row-major order.

  apply_at: (params, x, sites [n]) -> [Cout, n], which is apply(params, x)[:, sites].
  """

  init: Callable[[Key], Params]
  apply: Callable[[Params, Array], Array]
  apply_at: Callable[[Params, Array, AnyArray], Array]
  channels: tuple[int, ...]
  operations: int


class _Group(NamedTuple):
  """Directions convolved together.

  basis [n, 2, P]: orthonormal functions f on their P sites. shifts [n, 2, 2, J]: <f_nb, S_j f_na>, (S_j f)(s) = f(s + d_j)
  for the offsets d_j of the product of their kernels.
  """

  directions: tuple[int, ...]
  basis: np.ndarray
  shifts: np.ndarray


def make(config: Config, channels_in: int, channels_out: int, lattice: Extents, remat: bool = True) -> Net:
  """The network between such fields; the shapes of its parameters do not depend on the extents.

  remat: gradients keep the input alone and compute activations again, which is faster than a way through main memory;
  False where the caller's own jax.checkpoint does so. Raises ValueError for channels or extents below 1.
  """
  if min(channels_in, channels_out) < 1:
    raise ValueError(f"channels_in and channels_out must be positive, not {channels_in} and {channels_out}")
  if not lattice or min(lattice) < 1:
    raise ValueError(f"lattice must have positive extents, not {tuple(lattice)}")
  widths = (channels_in, *config.hidden, channels_out)
  parameters = hk.without_apply_rng(hk.transform(lambda: _parameters(config, widths, len(lattice))))
  narrow = lattice[:-1] if config.widen_last else lattice
  groups = [_group(lattice, directions, config.kernel) for directions in _partition(narrow)]
  run_blocks = _widening if config.widen_last else _alternating

  def apply(params: Params, x: Array) -> Array:
    blocks = parameters.apply(jax.tree.map(lambda p: p.astype(x.dtype), params))
    return run_blocks(config.slope, groups, blocks, x)

  # In a scan over layers nothing can merge the two computations; elsewhere that costs memory only.
  run = jax.checkpoint(apply, prevent_cse=False) if remat else apply
  # Rows are gathered, and scattered by the gradient, faster than columns.
  at = lambda params, x, sites: run(params, x).T[sites].T
  taps = sum(math.prod(s) for a, b in itertools.pairwise(widths) for s in _shapes(config, a, b, len(lattice)))
  return Net(parameters.init, run, at, widths, 2 * taps * math.prod(lattice))


def _parameters(config: Config, widths: tuple[int, ...], nd: int) -> list[Block]:
  xavier = hk.initializers.VarianceScaling(config.gain**2, "fan_avg", "normal")
  dtype = jnp.result_type(float)
  blocks = []
  for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
    with hk.name_scope(f"block{i}"):
      shapes = _shapes(config, fan_in, fan_out, nd)
      weights = [hk.get_parameter(f"w{mu}", shape, dtype, xavier) for mu, shape in enumerate(shapes)]
      blocks.append((weights, hk.get_parameter("b", (fan_out,), dtype, hk.initializers.RandomNormal(config.bias))))
  return blocks


def _shapes(config: Config, fan_in: int, fan_out: int, nd: int) -> list[tuple[int, int, int]]:
  between = fan_in if config.widen_last else fan_out
  channels = [fan_in, *[between] * (nd - 1), fan_out]
  return [(config.kernel, a, b) for a, b in itertools.pairwise(channels)]


def _partition(lattice: Extents) -> list[tuple[int, ...]]:
  """Successive directions, in pairs where those are small: the matrices of a pair are as many as half its sites."""
  groups: list[tuple[int, ...]] = [(0,)] if lattice else []
  for mu in range(1, len(lattice)):
    sites = lattice[groups[-1][0]] * lattice[mu]
    if len(groups[-1]) == 1 and sites <= (64 if sites < math.prod(lattice) else 32):
      groups[-1] = (*groups[-1], mu)
    else:
      groups.append((mu,))
  return groups


def _group(lattice: Extents, directions: tuple[int, ...], kernel: int) -> _Group:
  extents = tuple(lattice[mu] for mu in directions)
  x = np.indices(extents).reshape(len(extents), -1)
  index = np.arange(x.shape[1])
  phase = 2 * np.pi * np.einsum("ik,ix->kx", x / np.array(extents)[:, None], x)
  minus = np.ravel_multi_index(tuple((-k) % n for k, n in zip(x, extents)), extents)
  # k = -k leaves a cosine only. Shifts mix it with no other function, so that any two of these go together.
  alone, half = np.cos(phase[minus == index]), phase[index < minus]
  if len(alone) % 2:
    alone = np.concatenate([alone, np.zeros_like(alone[:1])])
  pairs = np.sqrt(2) * np.stack([np.cos(half), np.sin(half)], axis=1)
  basis = np.concatenate([alone.reshape(-1, 2, len(index)), pairs]) / np.sqrt(len(index))
  functions = basis.reshape(*basis.shape[:2], *extents)
  offsets = itertools.product(range(-(kernel // 2), kernel // 2 + 1), repeat=len(extents))
  shifted = [np.roll(functions, [-d for d in offset], range(2, functions.ndim)) for offset in offsets]
  shifts = np.stack([np.einsum("nbx,nax->nba", basis, f.reshape(basis.shape)) for f in shifted], axis=-1)
  return _Group(directions, basis, shifts)


def _convolve(group: _Group, weights: list[Array], x: Array) -> Array:
  """The convolutions of a group, [P, Cin, Q, ...] -> [Q, Cout, ..., P]."""
  basis, shifts = group.basis.astype(x.dtype), group.shifts.astype(x.dtype)
  kernel, *others = (jnp.swapaxes(weights[mu], 1, 2) for mu in group.directions)
  for w in others:
    # Not as products of small matrices: these do not compile for GPUs.
    kernel = jnp.einsum("kop,jpi->jkoi", w, kernel, precision=lax.Precision.HIGHEST)
    kernel = kernel.reshape(-1, *kernel.shape[2:])
  mixing = jnp.einsum("nbaj,joi->nboai", shifts, kernel, precision=lax.Precision.HIGHEST)
  y = _dot(mixing, _dot(basis, x, 0, 1), 1, 2)
  y = _dot(np.moveaxis(basis, -1, 0), y, 0, 2)
  return jnp.transpose(y, (2, 1, *range(3, y.ndim), 0)) if y.ndim > 2 else y


def _alternating(slope: float, groups: list[_Group], blocks: list[Block], x: Array) -> Array:
  """All blocks on x [Cin, V]; between them fields stay in the order that the last group has left them in."""
  # Each group in turn finds its sites before the channels, and those of the others behind.
  x = jnp.moveaxis(x.reshape(-1, *(group.basis.shape[-1] for group in groups)), 0, 1)
  for i, (weights, bias) in enumerate(blocks):
    x = jnp.where(x > 0, x, slope * x) if i else x
    for group in groups:
      x = _convolve(group, weights, x)
    x = x + bias.reshape(-1, *(1,) * (x.ndim - 2))
  return jnp.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def _widening(slope: float, groups: list[_Group], blocks: list[Block], x: Array) -> Array:
  """All blocks on x [Cin, V] where the last direction, which no group has, widens: one product makes its many channels.

  In momentum space they would be transformed back, and brought into the order of sites.
  """
  sites = [group.basis.shape[-1] for group in groups]
  for i, (weights, bias) in enumerate(blocks):
    x = jnp.where(x > 0, x, slope * x) if i else x
    x = jnp.moveaxis(x.reshape(len(x), *sites, -1), 0, 1)
    for group in groups:
      x = _convolve(group, weights, x)
    # [n, C, *sites]: n sites along the last direction. Its neighbours s + j - kernel // 2, beside each other as channels.
    kernel = weights[-1]
    x = jnp.concatenate([jnp.roll(x, len(kernel) // 2 - j, axis=0) for j in range(len(kernel))], axis=1)
    x = jnp.moveaxis(x, 0, -1).reshape(x.shape[1], -1)
    x = _dot(kernel.reshape(-1, kernel.shape[-1]).T, x, 0, 1) + bias[:, None]
  return x


def _dot(a: Array | np.ndarray, x: Array, batch: int, summed: int) -> Array:
  """sum_k a[n, m, k] x[n, k, r] -> [n, m, r]; `batch` axes n, `summed` axes k, any number of axes m and r.

  A primitive, up to a third faster in training than dot_general: vmap puts x's batch last, an order in which products and
  derivatives need no rearranging, and the derivative by x is a product of the same form, not a transposed one.
  """
  return _dot_p.bind(jnp.asarray(a), x, batch=batch, summed=summed)


def _dot_value(a: Array, x: Array, *, batch: int, summed: int) -> Array:
  axes = tuple(range(a.ndim - summed, a.ndim)), tuple(range(batch, batch + summed))
  # Less than full precision, as GPUs take by default, would limit how well a flow can be inverted.
  return lax.dot_general(a, x, (axes, (tuple(range(batch)), tuple(range(batch)))), precision=lax.Precision.HIGHEST)


def _dot_shape(a: ShapedArray, x: ShapedArray, *, batch: int, summed: int) -> ShapedArray:
  return ShapedArray(a.shape[: a.ndim - summed] + x.shape[batch + summed :], x.dtype)


def _dot_by_a(g: Array, a: ad.UndefinedPrimal, x: Array, *, batch: int, summed: int) -> Array:
  # One summed axis: with several XLA transposes an operand first.
  n, k = math.prod(x.shape[:batch]), math.prod(x.shape[batch : batch + summed])
  g, x = g.reshape(n, -1, x.size // (n * k)), x.reshape(n, k, -1)
  y = lax.dot_general(g, x, (((2,), (2,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)
  return y.reshape(a.aval.shape)


def _dot_by_x(g: Array, a: Array, x: ad.UndefinedPrimal, *, batch: int, summed: int) -> Array:
  kept = a.ndim - summed
  order = (*range(batch), *range(kept, a.ndim), *range(batch, kept))
  return _dot_p.bind(jnp.transpose(a, order), g, batch=batch, summed=kept - batch)


def _dot_vmap(args: tuple[Array, Array], axes: tuple[int | None, int | None], **counts: int) -> tuple[Array, int]:
  a, x = args
  if axes[0] is not None or axes[1] is None:
    return jax.vmap(lambda a, x: _dot_value(a, x, **counts), axes)(a, x), 0
  y = _dot_p.bind(a, jnp.moveaxis(x, axes[1], -1), **counts)
  return y, y.ndim - 1


_dot_p = jex.core.Primitive("dot_batch_last")
_dot_p.def_impl(_dot_value)
_dot_p.def_abstract_eval(_dot_shape)
ad.defbilinear(_dot_p, _dot_by_a, _dot_by_x)
batching.primitive_batchers[_dot_p] = _dot_vmap
mlir.register_lowering(_dot_p, mlir.lower_fun(_dot_value, multiple_results=False))
