"""The exponential of antihermitian matrices, smooth everywhere.

By Cayley and Hamilton e^X = a + b X + c X^2 with invariant coefficients. Their Taylor series obeys a recursion of
real scalars, so that there is no eigenvalue, no division by a gap, and a derivative that is right at coinciding
eigenvalues. Large arguments are halved first and squared back, again on the coefficients alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.interpreters import ad, batching, mlir

from flowqcd.lattice import fusion, group
from flowqcd.types import Array

_TERMS = {4: 15, 8: 26}
"""Taylor terms by bytes of the real type: 2^n/n! is below rounding for arguments of norm at most two."""
_MAX_SQUARINGS = 40
_FIXED_SQUARINGS = 12
"""On accelerators, for which a loop whose length the data decide is a wait for the host: norms up to 8,192."""

Coefficients = tuple[Array, Array, Array]


def exp(x: Array) -> Array:
  """e^x for x in the Lie algebra. [..., Nc, Nc, V], Nc = 1, 2 or 3; traceless for Nc > 1.

  Relative error a few ulps times max(1, |x|). On GPUs and TPUs NaN where the largest eigenvalue may exceed 8,192, where
  single precision has no digits left but three. Raises ValueError for other Nc.
  """
  nc = x.shape[-2]
  if nc == 1:
    return jnp.exp(x)
  if nc not in (2, 3):
    raise ValueError(f"the exponential is written for Nc = 1, 2, 3, not Nc = {nc}")
  # x is often a sum of forces: written out once here, it is read six times below.
  x = fusion.materialise(x)
  square = fusion.materialise(group.mul(x, x))
  p = 0.5 * group.trace(square).real
  # det x = tr x^3 / 3 = i delta. For Nc = 2 the same recursion holds with delta = 0: x^3 = p x.
  delta = jnp.sum(square * jnp.swapaxes(x, -3, -2), axis=(-3, -2)).imag / 3
  a, b, c = _coefficients(p, delta if nc == 3 else jnp.zeros_like(delta))
  wide = [z[..., None, None, :] for z in (a, b, c)]
  return fusion.materialise(wide[0] * group.identity(nc, x.dtype) + wide[1] * x + wide[2] * square)


def _coefficients(p: Array, delta: Array) -> Coefficients:
  """(a, b, c) of e^x = a + b x + c x^2 when x^3 = p x + i delta, site by site."""
  a, b, c = _sitewise_p.bind(p, delta, function=_series)
  return a, b, c


Sitewise = Callable[[Array, Array], tuple[Array, ...]]
"""Arrays from two scalars at every site."""


@cache
def _with_partials(function: Sitewise) -> Sitewise:
  """Values, then derivatives by the first and by the second scalar, by forward mode."""

  def every(p: Array, delta: Array) -> tuple[Array, ...]:
    one, zero = jnp.ones_like(p), jnp.zeros_like(p)
    value, by_p = jax.jvp(function, (p, delta), (one, zero))
    return *value, *by_p, *jax.jvp(function, (p, delta), (zero, one))[1]

  return every


def _sitewise_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, function: Sitewise) -> tuple[list, list]:
  found = _sitewise_p.bind(*primals, function=_with_partials(function))
  n = len(found) // 3
  dp, ddelta = map(ad.instantiate_zeros, tangents)
  return found[:n], [f * dp + g * ddelta for f, g in zip(found[n : 2 * n], found[2 * n :])]


def _sitewise_vmap(args: Sequence[Array], axes: Sequence[int | None], *, function: Sitewise) -> tuple[list, list]:
  size = next(x.shape[axis] for x, axis in zip(args, axes) if axis is not None)
  front = lambda x, axis: jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
  found = _sitewise_p.bind(*map(front, args, axes), function=function)
  return found, [0] * len(found)


# The squarings are a loop whose length depends on the data, which has no reverse mode; but a function of two scalars needs
# only its two partial derivatives, and multiplying by those has one. They are such functions too, and so on. A primitive,
# for JAX forgets the rule of a custom_jvp where derivatives of derivatives go through a scan.
_sitewise_p = jex.core.Primitive("sitewise")
_sitewise_p.multiple_results = True
_sitewise_p.def_impl(jax.jit(lambda p, delta, *, function: function(p, delta), static_argnames="function"))
_sitewise_p.def_abstract_eval(
  lambda p, delta, *, function: [ShapedArray(x.shape, x.dtype) for x in jax.eval_shape(function, p, delta)]
)
ad.primitive_jvps[_sitewise_p] = _sitewise_jvp
batching.primitive_batchers[_sitewise_p] = _sitewise_vmap
mlir.register_lowering(
  _sitewise_p, mlir.lower_fun(lambda p, delta, *, function: function(p, delta), multiple_results=True)
)


def _series(p: Array, delta: Array) -> Coefficients:
  # |x| = sqrt(-2 p) bounds every eigenvalue; n halvings bring it to at most two.
  norm2 = lax.stop_gradient(jnp.maximum(-2 * p, 1e-30))
  n = jnp.clip(jnp.ceil(0.5 * jnp.log2(norm2 / 4)), 0, _MAX_SQUARINGS)
  scale = 2.0**-n
  a, b, c = _taylor(p * scale**2, delta * scale**3)
  return _square_back((a, b * scale, c * scale**2), p, delta, n)


def _taylor(p: Array, delta: Array) -> Coefficients:
  """The series in y = -i x, hermitian, y^3 = -p y + ... with real coefficients: y^k = u + v y + w y^2."""
  # x = i y and x^3 = p x + i delta give y^3 = -p y - delta, so y^{k+1} = -delta w + (u - p w) y + v y^2.
  start = [jnp.ones_like(p)] + [jnp.zeros_like(p)] * 2
  power, even, odd = start, start, [jnp.zeros_like(p)] * 3
  factor = 1.0
  for k in range(1, _TERMS[p.dtype.itemsize] + 1):
    u, v, w = power
    power = [-delta * w, u - p * w, v]
    factor /= k
    sign = factor if k % 4 in (0, 1) else -factor  # i^k = 1, i, -1, -i: even terms are real, odd ones imaginary.
    if k % 2:
      odd = [s + sign * z for s, z in zip(odd, power)]
    else:
      even = [s + sign * z for s, z in zip(even, power)]
  a, b, c = (e + 1j * o for e, o in zip(even, odd))
  # Back from y = -i x: b y = -i b x, c y^2 = -c x^2.
  return a, -1j * b, -c


def _square_back(start: Coefficients, p: Array, delta: Array, n: Array) -> Coefficients:
  """Square the element n times at each site."""
  return lax.platform_dependent(start, p, delta, n, cpu=_square_as_needed, default=_square_as_feared)


def _square_as_needed(start: Coefficients, p: Array, delta: Array, n: Array) -> Coefficients:
  """In a loop as long as the worst site needs, mostly none at all.

  The loop also keeps XLA from fusing the whole series into every matrix element that reads a coefficient.
  """
  longest = lax.stop_gradient(jnp.max(n))
  step = lambda state: (state[0] + 1, _squared(state[0] < n, state[1], p, delta))
  return lax.while_loop(lambda state: state[0] < longest, step, (jnp.zeros((), n.dtype), start))[1]


def _square_as_feared(start: Coefficients, p: Array, delta: Array, n: Array) -> Coefficients:
  """As often as the largest norm would need, in one kernel."""
  step = lambda i, state: _squared(i < n, state, p, delta)
  found = lax.fori_loop(0, _FIXED_SQUARINGS, step, start, unroll=True)
  return jax.tree.map(lambda z: jnp.where(n > _FIXED_SQUARINGS, jnp.nan, z), found)


def _squared(where: Array, state: Coefficients, p: Array, delta: Array) -> Coefficients:
  """(a + b x + c x^2)^2 at some sites, with x^3 = p x + d and x^4 = p x^2 + d x."""
  (a, b, c), d = state, 1j * delta
  squared = a * a + 2 * b * c * d, 2 * a * b + 2 * b * c * p + c * c * d, b * b + 2 * a * c + c * c * p
  a, b, c = (jnp.where(where, new, old) for new, old in zip(squared, state))
  return a, b, c
