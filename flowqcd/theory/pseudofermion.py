"""Pseudofermion actions for N_f = 2: plain, even/odd, and split in two by Hasenbusch.

All are S = s^dag (A A^dag + mu0)^{-1} s with a source s, which is phi or W phi with W = A + i mass gamma5. With
X = (A A^dag + mu0)^{-1} s held fixed, 2 Re <X, s> - |A^dag X|^2 - mu0 |X|^2 has the value of S, up to the square of the
solver's error, and the gradient of S in both u and phi: dS = 2 Re <X, dA (phi - A^dag X)>, without phi where s = phi.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd.lattice import precision, sites, spin
from flowqcd.theory import dirac, solvers
from flowqcd.types import Action, Array, Boundary, Key, LinearOperator, Refreshed, require_finite

OperatorOf = Callable[[Array], LinearOperator]


def gaussian(key: Key, u: Array, parities: int) -> Array:
  """Complex normal spinors of density e^{-|chi|^2}/pi per component: [Ns, Nc, V/parities]."""
  lattice = sites.extents(u)
  volume = u[0, 0, 0].size // parities
  shape = (spin.components(len(lattice)), u.shape[1], volume)
  return jax.random.normal(key, shape, u.dtype)


def _quadratic(
  operator_of: OperatorOf,
  mass: float | None,
  mu0: float,
  tolerances: tuple[float | None, float | None],
  refresh: Callable[[Key, Array], Refreshed],
) -> Action:
  """The action s^dag (A A^dag + mu0)^{-1} s, s = phi for mass None and W phi otherwise.

  tolerances: of the solver in the force and in the value.
  """

  def source(operator: LinearOperator, phi: Array) -> Array:
    return phi if mass is None else _twisted(operator, mass, phi)

  def local(u: Array, phi: Array) -> Array:
    operator = operator_of(u)
    s, constant = source(operator, phi), lax.stop_gradient(u)
    x = lax.stop_gradient(_solve(operator_of, constant, mu0, lax.stop_gradient(s), tolerances[1]))
    return 2 * (x.conj() * s).real - _squares(operator.adjoint(x)) - mu0 * _squares(x)

  def force(u: Array, phi: Array) -> Array:
    operator = operator_of(u)
    x = _solve(operator_of, u, mu0, source(operator, phi), tolerances[0])
    if operator.derivative is None:
      raise ValueError("a force needs an operator with its derivative by the links")
    moving = -operator.adjoint(x) if mass is None else phi - operator.adjoint(x)
    return sites.unflatten(2 * operator.derivative(x, moving), sites.extents(u))

  return precision.of_links(Action(refresh, lambda u, phi: jnp.sum(local(u, phi)), force, local))


def _squares(psi: Array) -> Array:
  """|psi|^2 of each component."""
  return psi.real**2 + psi.imag**2


def _fresh(phi: Array, chi: Array) -> Refreshed:
  """phi with the action |chi|^2 of the normal field that it was made of."""
  return Refreshed(phi, solvers.norm2(chi), _squares(chi))


def _solve(operator_of: OperatorOf, u: Array, mu0: float, s: Array, tol: float | None) -> Array:
  """(A A^dag + mu0)^{-1} s. In double precision all but the residuals is done in single."""
  apply = dirac.normal(operator_of(u), mu0).apply
  if s.dtype != jnp.complex128:
    return solvers.cg(apply, s, tol).x
  single = dirac.normal(operator_of(u.astype(jnp.complex64)), mu0).apply
  return solvers.refined_cg(apply, single, s, tol).x


def plain(
  kappa: float,
  boundary: Boundary | None = None,
  mu0: float = 0.0,
  tolerances: tuple[float | None, float | None] = (None, None),
) -> Action:
  """phi^dag (D D^dag + mu0)^{-1} phi on the full lattice; the fields are phi [Ns, Nc, V]. arXiv:2208.03832, sec. 3.

  Refresh draws phi = (D + i sqrt(mu0) gamma5) chi, whose covariance is D D^dag + mu0.
  """
  require_finite(kappa=kappa)
  operator_of = lambda u: dirac.wilson(u, kappa, boundary)
  return _regulated(operator_of, 1, mu0, tolerances)


def even_odd(
  kappa: float,
  boundary: Boundary | None = None,
  mu0: float = 0.0,
  tolerances: tuple[float | None, float | None] = (None, None),
  twisted_mass: float = 0.0,
) -> Action:
  """phi^dag (M M^dag + mu0)^{-1} phi with the Schur complement M on odd sites; phi [Ns, Nc, V/2].

  With a twisted mass mu, M is that of D + i mu gamma5 (`dirac.schur`), and det M M^dag = det(D D^dag + mu^2). Raises
  ValueError for mu0 beside it: M M^dag is above mu^2 by itself, and gamma5 M gamma5 is no longer M^dag.
  """
  require_finite(kappa=kappa, twisted_mass=twisted_mass)
  if mu0 and twisted_mass:
    raise ValueError(f"a twisted mass needs no regulator: set mu0 = 0, not {mu0}")
  operator_of = lambda u: dirac.schur(u, kappa, boundary, twisted_mass)
  return _regulated(operator_of, 2, mu0, tolerances)


def _regulated(
  operator_of: OperatorOf,
  parities: int,
  mu0: float,
  tolerances: tuple[float | None, float | None],
) -> Action:
  require_finite(mu0=mu0)

  def refresh(key: Key, u: Array) -> Refreshed:
    chi = gaussian(key, u, parities)
    return _fresh(_twisted(operator_of(u), mu0**0.5, chi), chi)

  return _quadratic(operator_of, None, mu0, tolerances, refresh)


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
  require_finite(kappa=kappa)
  operator_of = lambda u: dirac.schur(u, kappa, boundary)

  def refresh(key: Key, u: Array) -> Refreshed:
    m, chi = operator_of(u), gaussian(key, u, 2)
    # The value |chi|^2 is right to the first power of this solver's error only: to the precision's end, therefore.
    x = _solve(operator_of, u, mass**2, m.apply(chi), None)
    # W^{-1} = W^dag (W W^dag)^{-1}, W^dag = M^dag - i mass gamma5.
    return _fresh(m.adjoint(x) - 1j * mass * dirac.gamma5(x), chi)

  heavy = even_odd(kappa, boundary, mass**2, tolerances)
  return heavy, _quadratic(operator_of, mass, 0.0, tolerances, refresh)


def _twisted(operator: LinearOperator, mass: float, psi: Array) -> Array:
  """W psi = (A + i mass gamma5) psi; W W^dag = A A^dag + mass^2, since gamma5 A^dag = A gamma5."""
  image = operator.apply(psi)
  return image + 1j * mass * dirac.gamma5(psi) if mass else image
