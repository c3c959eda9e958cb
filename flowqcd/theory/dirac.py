"""The Wilson operator D = 1 - kappa H and its even/odd Schur complement, in 2 and 4 dimensions.

H psi(x) = sum_mu [(1 - gamma_mu) U_mu(x) psi(x+mu) + (1 + gamma_mu) U_mu(x-mu)^dag psi(x-mu)].
Relation to the mass form: D_mass = D/(2 kappa), kappa = 1/(2 m + 2 d). gamma5 D gamma5 = D^dag.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from flowqcd.lattice import checkerboard, fusion, group, precision, sites, spin
from flowqcd.types import Array, Boundary, LinearOperator

Shift = Callable[[Array, int, int], Array]
"""(field, mu, +-1) -> the neighbour's value."""


def antiperiodic(nd: int) -> Boundary:
  """Antiperiodic in time, periodic in space: the default here. (The paper does not say which it uses.)"""
  return (-1.0,) + (1.0,) * (nd - 1)


def check_boundary(boundary: Boundary | None, nd: int) -> Boundary:
  """The boundary as a tuple of one phase for each of nd directions; None means antiperiodic in time. Raises ValueError."""
  if boundary is None:
    return antiperiodic(nd)
  if np.ndim(boundary) != 1 or len(boundary) != nd:
    raise ValueError(f"{nd} boundary phases are needed, one per direction, not {boundary}")
  return tuple(boundary)


def phases(u: Array, boundary: Boundary | None) -> Boundary:
  """`check_boundary` in the dimensions of links u."""
  return check_boundary(boundary, len(sites.extents(u)))


def with_boundary(u: Array, boundary: Boundary | None) -> Array:
  """Links times the fermion phases: U_mu on the last slice along mu is multiplied by boundary[mu].

  u: [Nd, Nc, Nc, *L]; same shape out. The result is no gauge field of the group, only a background for fermions.
  """
  lattice, boundary = sites.extents(u), phases(u, boundary)
  phased = []
  for mu, phase in enumerate(boundary):
    shape = [1] * len(lattice)
    shape[mu] = lattice[mu]
    factor = jnp.ones(lattice[mu], u.dtype).at[-1].set(phase)
    phased.append(u[mu] * factor.reshape(shape))
  return jnp.stack(phased)


def _stack(forward: Array, backward: Array) -> Array:
  """Interleave: entry 2 mu is the forward hop along mu, 2 mu + 1 the backward one."""
  return jnp.stack([forward, backward], axis=1).reshape((-1, *forward.shape[1:]))


def hopping_links(u: Array, boundary: Boundary | None) -> Array:
  """U_mu(x) and U_mu(x-mu)^dag for every mu, boundary phases included: [2 Nd, Nc, Nc, V]."""
  lattice = sites.extents(u)
  v = sites.flatten(with_boundary(u, boundary))
  back = [group.adjoint(sites.shift(v[mu], lattice, mu, -1)) for mu in range(len(lattice))]
  return _stack(v, jnp.stack(back))


def project(psi: Array) -> Array:
  """Half spinors of all hops, before they move: up -+ s_mu down for (1 -+ gamma_mu). [Ns, Nc, V] -> [2 Nd, Ns/2, Nc, V]."""
  half, nd = psi.shape[0] // 2, 2 * (psi.shape[0].bit_length() - 1)  # Ns = 2^(nd/2).
  rotated = [jnp.stack(spin.matvec(matrix, psi[half:])) for matrix in spin.chiral_blocks(nd)]
  return jnp.stack([psi[:half] - sign * r for r in rotated for sign in (1, -1)])


def project_each(psi: Array) -> Array:
  """`project` of a field of its own for each hop: [2 Nd, Ns, Nc, V] -> [2 Nd, Ns/2, Nc, V]."""
  half = psi.shape[1] // 2
  blocks = spin.chiral_blocks(len(psi) // 2)
  rotated = [jnp.stack(spin.matvec(blocks[i // 2], x[half:])) for i, x in enumerate(psi)]
  return jnp.stack([x[:half] - (1 - 2 * (i % 2)) * r for i, (x, r) in enumerate(zip(psi, rotated))])


def transport(links: Array, halves: Array, shift: Shift) -> Array:
  """Move the half spinor of each hop to its target and multiply it by the link. [2 Nd, Ns/2, Nc, V], sites of targets.

  All are shifted into one array first; fused into the products they would be read element by element, three times slower.
  """
  moved = jnp.stack([shift(h, i // 2, 1 - 2 * (i % 2)) for i, h in enumerate(halves)])
  return precision.added(links[:, None, :, k] * moved[:, :, None, k] for k in range(links.shape[1]))


def reconstruct(moved: Array) -> Array:
  """Sum of full spinors (1 -+ gamma_mu) psi from their half spinors: [2 Nd, Ns/2, Nc, V] -> [Ns, Nc, V]."""
  # (1 - sign gamma) psi = (h, -sign s^dag h): forward hops enter the lower half with a minus sign, backward with plus.
  difference = moved[1::2] - moved[0::2]
  blocks = spin.chiral_blocks(len(difference))
  lower = sum(jnp.stack(spin.matvec(s.conj().T, d)) for s, d in zip(blocks, difference))
  return jnp.concatenate([jnp.sum(moved, axis=0), lower])


def reconstruct_each(moved: Array) -> Array:
  """The full spinor of each hop by itself: [2 Nd, Ns/2, Nc, V] -> [2 Nd, Ns, Nc, V]."""
  daggers = [s.conj().T for s in spin.chiral_blocks(len(moved) // 2)]
  lower = [jnp.stack(spin.matvec(daggers[i // 2], (2 * (i % 2) - 1) * h)) for i, h in enumerate(moved)]
  return jnp.concatenate([moved, jnp.stack(lower)], axis=1)


def hop(links: Array, psi: Array, shift: Shift) -> Array:
  """H psi, or one of its parity blocks, depending on what links and shift speak of.

  links: [2 Nd, Nc, Nc, V] at the target sites; psi: [Ns, Nc, V]. (1 -+ gamma_mu) has rank Ns/2, so Ns/2 spin components
  travel and are multiplied.
  """
  return reconstruct(transport(links, project(psi), shift))


def hop_derivative(v: Array, lattice: sites.Extents, a: Array, b: Array) -> Array:
  """T^a d^a Re <a, H b>, antihermitian [Nd, Nc, Nc, V]. v: flat links with their phases; a, b: [Ns, Nc, V].

  1 -+ gamma_mu = P^dag P with P as in `project`. With dU = omega U and y = x + mu, Re <a, dH b> = Re tr(omega F),
  F_mu(x) = U_mu(x) sum over half-spin of (P b)(y) (P a)(x)^dag, forward hop, and (P a)(y) (P b)(x)^dag, backward hop.
  """
  halves_a, halves_b = fusion.materialise((project(a), project(b)))
  here = jnp.stack([halves_a[0::2], halves_b[1::2]])
  ahead = [jnp.stack([halves_b[2 * mu], halves_a[2 * mu + 1]]) for mu in range(len(lattice))]
  # [2 kinds of hop, Nd, Ns/2, Nc, V]; the sum runs over kinds and half-spin.
  there = jnp.stack([sites.shift(x, lattice, mu) for mu, x in enumerate(ahead)], axis=1)
  here, there = fusion.materialise((here.conj(), there))
  outer = precision.added(
    there[k, :, s, :, None] * here[k, :, s, None] for k in range(2) for s in range(there.shape[2])
  )
  return -0.5 * group.project(group.mul(v, fusion.materialise(outer)))


def gamma5(psi: Array) -> Array:
  """gamma5 psi: the lower half of the spin components changes sign. psi: [Ns, ...]."""
  half = psi.shape[0] // 2
  return jnp.concatenate([psi[:half], -psi[half:]])


def _hermitian_pair(apply: Callable[[Array], Array], derivative: Callable[[Array, Array], Array]) -> LinearOperator:
  """An operator A with gamma5 A gamma5 = A^dag."""
  return LinearOperator(apply, lambda psi: gamma5(apply(gamma5(psi))), derivative)


def wilson(u: Array, kappa: float | Array, boundary: Boundary | None = None) -> LinearOperator:
  """D = 1 - kappa H on flat spinors psi [Ns, Nc, V]. u: [Nd, Nc, Nc, *L]. Wilson (1974), eq. 4.4."""
  lattice = sites.extents(u)
  links = hopping_links(u, boundary)
  shift = lambda x, mu, sign: sites.shift(x, lattice, mu, sign)
  v = sites.flatten(with_boundary(u, boundary))
  return _hermitian_pair(
    lambda psi: psi - kappa * hop(links, psi, shift), lambda a, b: -kappa * hop_derivative(v, lattice, a, b)
  )


def parity_blocks(u: Array, boundary: Boundary | None) -> tuple[LinearOperator, LinearOperator]:
  """The blocks H_eo (odd to even) and H_oe (even to odd) of the hopping matrix on compact fields [Ns, Nc, V/2].

  adjoint of each: gamma5 times the other times gamma5. Raises ParityError for odd extents.
  """
  lattice = sites.extents(u)
  links = checkerboard.split(hopping_links(u, boundary), lattice)

  def block(parity: int) -> Callable[[Array], Array]:
    shift = lambda x, mu, sign: checkerboard.shift(x, lattice, mu, sign, parity)
    return lambda psi: hop(links[parity], psi, shift)

  to_even, to_odd = block(0), block(1)
  return (
    LinearOperator(to_even, lambda psi: gamma5(to_odd(gamma5(psi)))),
    LinearOperator(to_odd, lambda psi: gamma5(to_even(gamma5(psi)))),
  )


def is_twisted(mu: float | Array) -> bool:
  """Whether there is a twisted mass; a traced one is there whatever its value."""
  return isinstance(mu, Array) or mu != 0


def twist(psi: Array, mu: float | Array) -> Array:
  """(1 + i mu gamma5) psi."""
  return psi + 1j * mu * gamma5(psi) if is_twisted(mu) else psi


def untwist(psi: Array, mu: float | Array) -> Array:
  """(1 + i mu gamma5)^{-1} psi = (1 - i mu gamma5) psi/(1 + mu^2)."""
  return twist(psi, -mu) / (1 + mu**2) if is_twisted(mu) else psi


def twisted(u: Array, kappa: float | Array, mu: float | Array, boundary: Boundary | None = None) -> LinearOperator:
  """D + i mu gamma5 on flat spinors [Ns, Nc, V], mu in the normalisation of D = 1 - kappa H.

  (D + i mu gamma5)(D + i mu gamma5)^dag = D D^dag + mu^2. Frezzotti and Rossi, hep-lat/0306014: mu is 2 kappa times theirs.
  """
  d = wilson(u, kappa, boundary)
  return LinearOperator(
    lambda psi: d.apply(psi) + 1j * mu * gamma5(psi),
    lambda psi: d.adjoint(psi) - 1j * mu * gamma5(psi),
    d.derivative,
  )


def schur(
  u: Array, kappa: float | Array, boundary: Boundary | None = None, twisted_mass: float | Array = 0.0
) -> LinearOperator:
  """The even/odd Schur complement M = 1 - kappa^2 H_oe H_eo on odd sites, psi [Ns, Nc, V/2]; det M = det D.

  With a twisted mass mu that of D + i mu gamma5, whose determinant it has as well, with rho^2 = 1 + mu^2:
  M = rho [1 + i mu gamma5 - kappa^2 H_oe (1 + i mu gamma5)^{-1} H_eo]; rho is the even sites' share. This is not
  M + i mu gamma5, and gamma5 M(mu) gamma5 = M(-mu)^dag. DeGrand and Rossi, Comput. Phys. Commun. 60 (1990) 211. Raises
  ParityError for odd extents.
  """
  if is_twisted(twisted_mass):
    return _twisted_schur(u, kappa, boundary, twisted_mass)
  to_even, to_odd = parity_blocks(u, boundary)
  lattice, v = sites.extents(u), sites.flatten(with_boundary(u, boundary))

  def derivative(a: Array, b: Array) -> Array:
    # <a, d(H_oe H_eo) b> = <a, dH_oe H_eo b> + <H_oe^dag a, dH_eo b>: one derivative on all sites.
    wide_a = checkerboard.merge(to_odd.adjoint(a), a, lattice)
    wide_b = checkerboard.merge(to_even.apply(b), b, lattice)
    return -(kappa**2) * hop_derivative(v, lattice, wide_a, wide_b)

  return _hermitian_pair(lambda psi: psi - kappa**2 * to_odd.apply(to_even.apply(psi)), derivative)


def _twisted_schur(u: Array, kappa: float | Array, boundary: Boundary | None, mu: float | Array) -> LinearOperator:
  to_even, to_odd = parity_blocks(u, boundary)
  lattice, v = sites.extents(u), sites.flatten(with_boundary(u, boundary))
  rho = (1 + mu**2) ** 0.5

  def apply(psi: Array, mu: float | Array) -> Array:
    return rho * (twist(psi, mu) - kappa**2 * to_odd.apply(untwist(to_even.apply(psi), mu)))

  def derivative(a: Array, b: Array) -> Array:
    # As without the twist; between the hops is (1 + i mu gamma5)^{-1}, whose adjoint has -mu.
    wide_a = checkerboard.merge(untwist(to_odd.adjoint(a), -mu), a, lattice)
    wide_b = checkerboard.merge(untwist(to_even.apply(b), mu), b, lattice)
    return -rho * kappa**2 * hop_derivative(v, lattice, wide_a, wide_b)

  return LinearOperator(lambda psi: apply(psi, mu), lambda psi: gamma5(apply(gamma5(psi), -mu)), derivative)


def normal(operator: LinearOperator, mu0: float = 0.0) -> LinearOperator:
  """A A^dag + mu0, hermitian and positive. The regulator mu0 is the paper's, 1e-5 in training and 0 otherwise."""

  def apply(psi: Array) -> Array:
    result = operator.apply(operator.adjoint(psi))
    return result + mu0 * psi if mu0 else result

  return LinearOperator(apply, apply)
