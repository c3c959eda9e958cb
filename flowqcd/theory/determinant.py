"""ln det of the Wilson operator: exact by dense LU, and an unbiased stochastic gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import precision, sites, spin
from flowqcd.theory import dirac, solvers
from flowqcd.types import Array, Boundary, Key, LinearOperator


def dense(apply: Callable[[Array], Array], shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
  """Matrix of a linear map on fields of this shape, [n, n]: column j is the image of the j-th unit field."""
  n = 1
  for extent in shape:
    n *= extent
  unit = lambda j: (jnp.arange(n) == j).astype(dtype).reshape(shape)
  # Blocks of columns: on a CPU one at a time wastes the vector units, and all at once the cache. Of an accelerator a few
  # thousand are needed to fill it.
  blocks = lambda size: lambda j: lax.map(lambda j: apply(unit(j)).reshape(n), j, batch_size=min(n, size))
  return lax.platform_dependent(jnp.arange(n), cpu=blocks(16), default=blocks(4096)).T


def _one_at_a_time(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
  """Of a batch of matrices one at a time on CPUs, all at once elsewhere.

  jaxlib's batched LU on CPUs waits for helpers in the thread pool that it runs in, and never returns when as many devices
  as the pool has threads do so at once (jaxlib 0.10.2).
  """
  single = jax.custom_batching.sequential_vmap(function)
  return lambda a: lax.platform_dependent(a, cpu=single, default=function)


_lu_log_abs_det = _one_at_a_time(lambda a: jnp.linalg.slogdet(a)[1])
_lu_inverse = _one_at_a_time(jnp.linalg.inv)


@jax.custom_jvp
def log_abs_det(a: Array) -> Array:
  """ln |det a| of a square matrix [n, n], by LU. d ln |det a| = Re tr(a^{-1} da)."""
  return _lu_log_abs_det(a)


@log_abs_det.defjvp
def _log_abs_det_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  (a,), (da,) = primals, tangents
  return log_abs_det(a), jnp.sum(_inverse(a).T * da).real


@jax.custom_jvp
def _inverse(a: Array) -> Array:
  return _lu_inverse(a)


@_inverse.defjvp
def _inverse_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  (a,), (da,) = primals, tangents
  inverse = _inverse(a)
  return inverse, -(inverse @ da @ inverse)


def _spinor_shape(u: Array, parities: int) -> tuple[int, ...]:
  lattice = sites.extents(u)
  volume = 1
  for extent in lattice:
    volume *= extent
  return spin.components(len(lattice)), u.shape[1], volume // parities


def _even_odd(u: Array) -> bool:
  return all(n % 2 == 0 for n in sites.extents(u))


@precision.of_input
def log_det(u: Array, kappa: float | Array, boundary: Boundary | None = None, twisted_mass: float = 0.0) -> Array:
  """Re ln det D = ln |det D|, D = 1 - kappa H; exact, by LU of the even/odd Schur complement where extents allow.

  u: [Nd, Nc, Nc, *L]. N_f = 2 has the weight e^{2 log_det}. boundary None: antiperiodic in time. Cost grows with V^3.
  With a twisted mass mu it is ln |det(D + i mu gamma5)| = ln det(D D^dag + mu^2)/2.
  """
  return _log_det(u, kappa, dirac.phases(u, boundary), twisted_mass if dirac.is_twisted(twisted_mass) else None)


@functools.partial(jax.jit, static_argnames="boundary")
def _log_det(u: Array, kappa: float | Array, boundary: Boundary, mu: float | None) -> Array:
  if _even_odd(u):
    operator, shape = dirac.schur(u, kappa, boundary, 0.0 if mu is None else mu), _spinor_shape(u, 2)
  else:
    plain = lambda: dirac.wilson(u, kappa, boundary)
    operator, shape = plain() if mu is None else dirac.twisted(u, kappa, mu, boundary), _spinor_shape(u, 1)
  return log_abs_det(dense(operator.apply, shape, u.dtype))


@precision.of_input
def log_det_regulated(u: Array, kappa: float | Array, boundary: Boundary | None = None, mu0: float = 0.0) -> Array:
  """ln det(D D^dag + mu0) on the full lattice, exact. With mu0 = 0 it is 2 log_det."""
  return _log_det_regulated(u, kappa, dirac.phases(u, boundary), mu0)


@functools.partial(jax.jit, static_argnames="boundary")
def _log_det_regulated(u: Array, kappa: float | Array, boundary: Boundary, mu0: float) -> Array:
  matrix = dense(dirac.wilson(u, kappa, boundary).apply, _spinor_shape(u, 1), u.dtype)
  return log_abs_det(matrix @ matrix.conj().T + mu0 * jnp.eye(len(matrix), dtype=matrix.dtype))


def stochastic_surrogate(
  operator_of: Callable[[Array], LinearOperator],
  shape: tuple[int, ...],
  mu0: float = 0.0,
  num_noise: int = 1,
  tol: float | None = None,
) -> Callable[[Key, Array], Array]:
  """A scalar whose gradient in u is an unbiased estimate of the gradient of ln det(A A^dag + mu0).

  d ln det M = E_eta[eta^dag M^{-1} dM eta]: with psi = M^{-1} eta held fixed, differentiate Re <psi, M(u) eta>. Its
  *value* means nothing. operator_of: u -> A, on fields of `shape`. arXiv:2106.05934, appendix C.
  An unconverged solve makes it NaN.
  """

  def one(key: Key, u: Array) -> Array:
    eta = jax.random.normal(key, shape, u.dtype)
    frozen = dirac.normal(operator_of(lax.stop_gradient(u)), mu0)
    psi = lax.stop_gradient(solvers.cg(frozen.apply, eta, tol).x)
    return solvers.inner(psi, dirac.normal(operator_of(u), mu0).apply(eta)).real

  def surrogate(key: Key, u: Array) -> Array:
    keys = jax.random.split(key, num_noise)
    return jnp.mean(jax.vmap(one, (0, None))(keys, u))

  return surrogate
