"""U(1) as 1x1 matrices, SU(2) and SU(3) by one code.

All functions take matrices `[..., Nc, Nc, V]`: colours on the axes -3 and -2, any number of sites on the last.
Generators T^a are antihermitian with tr T^a T^b = -delta^{ab}/2; a group with Nc > 1 is special, U(1) is not.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.interpreters import ad, batching, mlir

from flowqcd.lattice import precision
from flowqcd.types import Array, Key, ScalarFunction


def casimir(nc: int) -> float:
  """C_F in -T^a T^a = C_F 1: (Nc^2 - 1)/(2 Nc), and 1/2 for U(1)."""
  return 0.5 if nc == 1 else (nc * nc - 1) / (2 * nc)


def _product(a: Array, b: Array) -> Array:
  return precision.added(a[..., :, k, None, :] * b[..., None, k, :, :] for k in range(a.shape[-2]))


def _product_vmap(args: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
  size = next(x.shape[axis] for x, axis in zip(args, axes) if axis is not None)
  a, b = (
    jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(args, axes)
  )
  return _product_p.bind(a, b), 0


# A primitive, for its derivatives: they are two more products of the same fast form. Letting JAX transpose the broadcast
# instead gives reductions that run five times slower. The map is holomorphic, so transposes are not conjugated.
_product_p = jex.core.Primitive("colour_product")
_product_p.def_impl(jax.jit(_product))
_product_p.def_abstract_eval(lambda a, b: ShapedArray((*a.shape[:-2], *b.shape[-2:]), a.dtype))
ad.defbilinear(
  _product_p,
  lambda g, a, b: _product_p.bind(g, jnp.swapaxes(b, -3, -2)),
  lambda g, a, b: _product_p.bind(jnp.swapaxes(a, -3, -2), g),
)
batching.primitive_batchers[_product_p] = _product_vmap
mlir.register_lowering(_product_p, mlir.lower_fun(_product, multiple_results=False))


def mul(a: Array, b: Array) -> Array:
  """Matrix product c_ij = sum_k a_ik b_kj at every site, [..., m, k, V] [..., k, n, V] -> [..., m, n, V]; the other axes
  broadcast."""
  *leading, volume = jnp.broadcast_shapes((*a.shape[:-3], a.shape[-1]), (*b.shape[:-3], b.shape[-1]))
  dtype = jnp.result_type(a, b)
  a, b = (jnp.broadcast_to(jnp.asarray(x, dtype), (*leading, *x.shape[-3:-1], volume)) for x in (a, b))
  return _product_p.bind(a, b)


def adjoint(a: Array) -> Array:
  """Hermitian conjugate a^dag. [..., Nc, Nc, V]."""
  return jnp.conj(jnp.swapaxes(a, -3, -2))


def trace(a: Array) -> Array:
  """tr a. [..., Nc, Nc, V] -> [..., V]."""
  return precision.added(a[..., i, i, :] for i in range(a.shape[-2]))


def identity(nc: int, dtype: jnp.dtype) -> Array:
  """The unit matrix, [Nc, Nc, 1], to broadcast against sites."""
  return jnp.eye(nc, dtype=dtype)[..., None]


def project(a: Array) -> Array:
  """TA(a) = (a - a^dag)/2 minus its trace part: the projection on the Lie algebra (no trace taken off for U(1))."""
  nc = a.shape[-2]
  x = 0.5 * (a - adjoint(a))
  if nc == 1:
    return x
  # Times the identity, not .at[].add on the diagonal: scatters are ten times slower.
  return x - (trace(x) / nc)[..., None, None, :] * identity(nc, a.dtype)


@cache
def basis(nc: int) -> np.ndarray:
  """Generators T^a, antihermitian, tr T^a T^b = -delta/2. Complex [dim, Nc, Nc]; i lambda_a/2 for SU(2), SU(3)."""
  if nc == 1:
    return np.array([[[1j / np.sqrt(2)]]])
  lambdas = []
  # Gell-Mann's order: for each new colour k the pairs (j, k), then the diagonal one.
  for k in range(1, nc):
    for j in range(k):
      symmetric, antisymmetric = np.zeros((2, nc, nc), complex)
      symmetric[j, k] = symmetric[k, j] = 1
      antisymmetric[j, k], antisymmetric[k, j] = -1j, 1j
      lambdas += [symmetric, antisymmetric]
    diagonal = np.diag([1.0] * k + [-float(k)] + [0.0] * (nc - k - 1)).astype(complex)
    lambdas.append(diagonal * np.sqrt(2 / (k * (k + 1))))
  return 0.5j * np.array(lambdas)


def to_coordinates(x: Array) -> Array:
  """p^a = -2 tr T^a x for x = p^a T^a. [..., Nc, Nc, V] -> real [..., dim, V]."""
  t = jnp.asarray(basis(x.shape[-2]), x.dtype)
  return -2 * jnp.einsum("aij,...jiv->...av", t, x).real


def from_coordinates(p: Array, nc: int) -> Array:
  """x = p^a T^a. Real [..., dim, V] -> [..., Nc, Nc, V]."""
  dtype = jnp.result_type(p.dtype, jnp.complex64)
  return jnp.einsum("aij,...av->...ijv", jnp.asarray(basis(nc), dtype), p.astype(dtype))


def norm2(x: Array) -> Array:
  """sum_a p^a p^a = -2 tr x^2 = 2 sum_ij |x_ij|^2 for x = p^a T^a. [..., Nc, Nc, V] -> [..., V]."""
  return 2 * jnp.sum(x.real**2 + x.imag**2, axis=(-3, -2))


def gaussian(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
  """Algebra elements p^a T^a with p^a standard normal, so the density is e^{tr x^2}. shape: [..., Nc, Nc, V]."""
  nc = shape[-2]
  real = jnp.finfo(dtype).dtype
  p = jax.random.normal(key, (*shape[:-3], len(basis(nc)), shape[-1]), real)
  return from_coordinates(p, nc)


def haar(key: Key, shape: tuple[int, ...], dtype: jnp.dtype = jnp.complex64) -> Array:
  """Group elements from the Haar measure. shape: [..., Nc, Nc, V].

  Gram-Schmidt of complex normal rows is Haar on U(Nc); the last row is then fixed by det = 1 (Nc > 1).
  """
  return reunitarise(jax.random.normal(key, shape, dtype))


def reunitarise(a: Array) -> Array:
  """The nearest row-by-row Gram-Schmidt frame: unitary, and of determinant one for Nc > 1. [..., Nc, Nc, V]."""
  nc = a.shape[-2]
  rows: list[Array] = []
  for i in range(nc):
    row = a[..., i, :, :]
    for _ in range(2):  # Twice is enough (Kahan): once loses digits when rows are nearly parallel.
      for done in rows:
        row = row - jnp.sum(done.conj() * row, axis=-2, keepdims=True) * done
    row = row / jnp.sqrt(jnp.sum(row.real**2 + row.imag**2, axis=-2, keepdims=True))
    rows.append(row)
  frame = jnp.stack(rows, axis=-3)
  if nc == 1:
    return frame
  rows[-1] = rows[-1] * det(frame).conj()[..., None, :]
  return jnp.stack(rows, axis=-3)


def det(a: Array) -> Array:
  """Determinant, expanded along the rows. [..., Nc, Nc, V] -> [..., V]."""

  def minor(row: int, columns: tuple[int, ...]) -> Any:
    if not columns:
      return 1
    return sum(
      (-1) ** k * a[..., row, c, :] * minor(row + 1, columns[:k] + columns[k + 1 :]) for k, c in enumerate(columns)
    )

  return minor(0, tuple(range(a.shape[-2])))


_POLAR_STEPS = {4: 9, 8: 12}
"""Newton steps by bytes of the real type; with its scaling eight and ten serve condition numbers up to 1e7 and 1e15."""


def polar(a: Array) -> Array:
  """The nearest element of the group to a, its unitary factor W in a = W |a|, less the phase of det W for Nc > 1.

  By Newton's iteration X <- (s X + X^{-dag}/s)/2, scaled as by Higham, which is smooth where singular values coincide; the
  phase taken off lies in (-pi, pi]. Undefined for singular a. Nc = 1, 2, 3. [..., Nc, Nc, V].
  """
  nc = a.shape[-2]

  def step(x: Array, _: None) -> tuple[Array, None]:
    inverse = cofactors(x).conj() / det(x).conj()[..., None, None, :]
    scale = jnp.sqrt(_size(inverse) / _size(x))
    return 0.5 * (scale * x + inverse / scale), None

  w, _ = lax.scan(step, a, length=_POLAR_STEPS[a.real.dtype.itemsize])
  return w if nc == 1 else w * jnp.exp(-1j / nc * jnp.angle(det(w)))[..., None, None, :]


def _size(x: Array) -> Array:
  return jnp.sqrt(jnp.sum(x.real**2 + x.imag**2, axis=(-3, -2), keepdims=True))


def cofactors(a: Array) -> Array:
  """C with a C^T = det a: [..., Nc, Nc, V], Nc = 1, 2, 3. Raises ValueError for other Nc."""
  nc = a.shape[-2]
  if nc == 1:
    return jnp.ones_like(a)
  if nc == 2:
    (p, q), (r, s) = (tuple(a[..., i, j, :] for j in range(2)) for i in range(2))
    return jnp.stack([jnp.stack([s, -r], axis=-2), jnp.stack([-q, p], axis=-2)], axis=-3)
  if nc != 3:
    raise ValueError(f"cofactors are written for Nc = 1, 2, 3, not Nc = {nc}")
  # Rows are cross products of the other two rows, cyclically.
  one, two = jnp.roll(a, -1, axis=-3), jnp.roll(a, -2, axis=-3)
  ahead = lambda x, n: jnp.roll(x, -n, axis=-2)
  return ahead(one, 1) * ahead(two, 2) - ahead(one, 2) * ahead(two, 1)


def violation(a: Array) -> Array:
  """max |a a^dag - 1| and |det a - 1| (the latter for Nc > 1) over all matrices: distance from the group."""
  nc = a.shape[-2]
  worst = jnp.max(jnp.abs(mul(a, adjoint(a)) - identity(nc, a.dtype)))
  return worst if nc == 1 else jnp.maximum(worst, jnp.max(jnp.abs(det(a) - 1)))


def lie_derivative(f: ScalarFunction):
  """T^a d^a f, the gradient of a real function of links, where (d^a f)(U) = d/de f(e^{e T^a} U) at e = 0.

  Equals -(1/2) TA(U G^dag) with G = df/dRe U + i df/dIm U. Returns a function of u [Nd, Nc, Nc, *L] whose value is
  antihermitian, of the same shape.
  """

  def gradient(u: Array) -> Array:
    nd, nc = u.shape[:2]
    # jax.grad of a real function returns df/dRe - i df/dIm, the conjugate of G, so G^dag is its plain transpose.
    g = jax.grad(f)(u).reshape(nd, nc, nc, -1)
    flat = u.reshape(nd, nc, nc, -1)
    return (-0.5 * project(mul(flat, jnp.swapaxes(g, -3, -2)))).reshape(u.shape)

  return precision.of_input(gradient)
