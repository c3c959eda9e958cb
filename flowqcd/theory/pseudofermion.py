"""Pseudofermion actions for N_f = 2: plain, even/odd, and split in two by Hasenbusch.

All are S = s^dag (A A^dag + mu0)^{-1} s with a source s(u, phi). With X = (A A^dag + mu0)^{-1} s held fixed,
2 Re <X, s> - |A^dag X|^2 - mu0 |X|^2 has the value of S, up to the square of the solver's error, and the gradient of S in
both u and phi: one formula serves values, forces and training.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import group, sites, spin
from flowqcd.theory import dirac, solvers
from flowqcd.types import Action, Array, Boundary, Fields, Key, LinearOperator

OperatorOf = Callable[[Array], LinearOperator]


def gaussian(key: Key, u: Array, parities: int) -> Array:
  """Complex normal spinors of density e^{-|chi|^2}/pi per component: [Ns, Nc, V/parities]."""
  lattice = sites.extents(u)
  volume = u[0, 0, 0].size // parities
  shape = (spin.components(len(lattice)), u.shape[1], volume)
  return jax.random.normal(key, shape, u.dtype)


def _quadratic(
  operator_of: OperatorOf,
  source: Callable[[Array, Fields], Array],
  mu0: float,
  tolerances: tuple[float | None, float | None],
  refresh: Callable[[Key, Array], Fields],
) -> Action:
  """The action s^dag (A A^dag + mu0)^{-1} s; tolerances of the solver in the force and in the value."""

  def surrogate(u: Array, fields: Fields, tol: float | None) -> Array:
    s, constant = source(u, fields), lax.stop_gradient(u)
    x = solvers.cg(dirac.normal(operator_of(constant), mu0).apply, lax.stop_gradient(s), tol).x
    x = lax.stop_gradient(x)
    back = operator_of(u).adjoint(x)
    return 2 * solvers.inner(x, s).real - solvers.norm2(back) - mu0 * solvers.norm2(x)

  def value(u: Array, fields: Fields) -> Array:
    return surrogate(u, fields, tolerances[1])

  def force(u: Array, fields: Fields) -> Array:
    return group.lie_derivative(lambda u: surrogate(u, fields, tolerances[0]))(u)

  return Action(refresh, value, force)


def plain(
  kappa: float,
  boundary: Boundary | None = None,
  mu0: float = 0.0,
  tolerances: tuple[float | None, float | None] = (None, None),
) -> Action:
  """phi^dag (D D^dag + mu0)^{-1} phi on the full lattice; the fields are phi [Ns, Nc, V]. arXiv:2208.03832, sec. 3.

  Refresh draws phi = D chi + sqrt(mu0) chi', whose covariance is D D^dag + mu0.
  """
  operator_of = lambda u: dirac.wilson(u, kappa, boundary)
  return _regulated(operator_of, 1, mu0, tolerances)


def even_odd(
  kappa: float,
  boundary: Boundary | None = None,
  mu0: float = 0.0,
  tolerances: tuple[float | None, float | None] = (None, None),
) -> Action:
  """phi^dag (M M^dag + mu0)^{-1} phi with the Schur complement M on odd sites; phi [Ns, Nc, V/2]."""
  operator_of = lambda u: dirac.schur(u, kappa, boundary)
  return _regulated(operator_of, 2, mu0, tolerances)


def _regulated(
  operator_of: OperatorOf,
  parities: int,
  mu0: float,
  tolerances: tuple[float | None, float | None],
) -> Action:
  def refresh(key: Key, u: Array) -> Array:
    first, second = jax.random.split(key)
    phi = operator_of(u).apply(gaussian(first, u, parities))
    return phi + jnp.sqrt(mu0) * gaussian(second, u, parities) if mu0 else phi

  return _quadratic(operator_of, lambda u, phi: phi, mu0, tolerances, refresh)


def hasenbusch(
  kappa: float,
  mass: float,
  boundary: Boundary | None = None,
  tolerances: tuple[float | None, float | None] = (None, None),
) -> tuple[Action, Action]:
  """Two actions whose product of determinants is det M M^dag: first det(M M^dag + mass^2), then the ratio.

  With W = M + i mass gamma5, W W^dag = M M^dag + mass^2. The ratio is phi^dag W^dag (M M^dag)^{-1} W phi, refreshed by
  phi = W^{-1} M chi. Even/odd preconditioned. Hasenbusch, Phys. Lett. B 519 (2001) 177. Raises ValueError for mass <= 0.
  """
  if mass <= 0:
    raise ValueError(f"the Hasenbusch mass must be positive, not {mass}")
  operator_of = lambda u: dirac.schur(u, kappa, boundary)

  def twisted(u: Array, phi: Array) -> Array:
    return operator_of(u).apply(phi) + 1j * mass * dirac.gamma5(phi)

  def refresh(key: Key, u: Array) -> Array:
    m = operator_of(u)
    chi = m.apply(gaussian(key, u, 2))
    x = solvers.cg(dirac.normal(m, mass**2).apply, chi, tolerances[1]).x
    # W^{-1} = W^dag (W W^dag)^{-1}, W^dag = M^dag - i mass gamma5.
    return m.adjoint(x) - 1j * mass * dirac.gamma5(x)

  heavy = even_odd(kappa, boundary, mass**2, tolerances)
  return heavy, _quadratic(operator_of, twisted, 0.0, tolerances, refresh)
