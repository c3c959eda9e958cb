"""What is measured on a configuration: plaquette, Polyakov loop, pion correlator, topological charge, energy density.

Equation numbers are those of arXiv:2208.03832. All take NumPy or JAX links [Nd, Nc, Nc, *L] and compute in their
precision. NumPy links have results of NumPy's, so that double precision survives what is done with them next.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowqcd.lattice import checkerboard, group, loops, precision, sites, spin
from flowqcd.theory import dirac, solvers
from flowqcd.types import Array, Boundary


@precision.compiled()
def plaquette(u: Array) -> Array:
  """P = (1/Nc)(1/V) sum_x sum_{mu<nu} Re tr P_{mu nu}(x), eq. 2: from 0 to Nd(Nd-1)/2, six in 4D."""
  traces = loops.plaquette_traces(u).real
  return jnp.sum(traces) / (u.shape[1] * traces[0].size)


@precision.compiled()
def mean_plaquette(u: Array) -> Array:
  """The average (1/Nc) Re tr P over all plaquettes, at most 1; what other codes print."""
  return jnp.mean(loops.plaquette_traces(u).real) / u.shape[1]


@precision.compiled("direction")
def polyakov_loop(u: Array, direction: int = 0) -> Array:
  """L = (1/V_perp) sum tr prod U_direction, eq. 3: complex, |L| <= Nc. The trace is not divided by Nc."""
  line = loops.polyakov_line(u, direction)
  return jnp.mean(sum(line[i, i] for i in range(u.shape[1])))


@precision.of_input
def pion_correlator(
  u: Array,
  kappa: float,
  boundary: Boundary | None = None,
  source: tuple[int, ...] | None = None,
  twisted_mass: float = 0.0,
) -> Array:
  """C(t) = sum_x tr |D^{-1}(x, t; source)|^2, eq. 4: real [T], t counted from the source's time slice.

  Normalised with D = 1 - kappa H; multiply by (2 kappa)^2 for the mass form. boundary None: antiperiodic in time;
  source None: the origin. Antiperiodicity does not show in |D^{-1}|^2 beyond the links. Values are NaN where the
  solver did not converge; outside a trace that raises ConvergenceError. With a twisted mass mu D is D + i mu gamma5, of
  the first flavour, and C that of the charged pion: gamma5 D(-mu)^{-1} gamma5 = D(mu)^{-1 dag}.
  """
  lattice = sites.extents(u)
  source = (0,) * len(lattice) if source is None else tuple(source)
  if len(source) != len(lattice) or not all(0 <= s < n for s, n in zip(source, lattice)):
    raise ValueError(f"the source {source} is not a site of the lattice {lattice}")
  solutions = _point_propagator(
    u, kappa, dirac.phases(u, boundary), source, twisted_mass if dirac.is_twisted(twisted_mass) else None
  )
  if not isinstance(solutions.residual, Tracer):
    solvers.require(solutions)
  density = jnp.sum(jnp.abs(solutions.x) ** 2, axis=(0, 1, 2)).reshape(lattice[0], -1)
  return jnp.roll(jnp.sum(density, axis=1), -source[0])


@functools.partial(jax.jit, static_argnames=("boundary", "source"))
def _point_propagator(
  u: Array, kappa: float, boundary: Boundary, source: tuple[int, ...], mu: float | None
) -> solvers.Solution:
  """D^{-1} from every spin and colour at one site: x is [Ns * Nc, Ns, Nc, V]."""
  lattice = sites.extents(u)
  here = int(np.ravel_multi_index(source, lattice))
  shape = (spin.components(len(lattice)), u.shape[1], u[0, 0, 0].size)
  inner = shape[0] * shape[1]
  sources = jnp.zeros((inner, inner, shape[2]), u.dtype)
  sources = sources.at[:, :, here].set(jnp.eye(inner, dtype=u.dtype)).reshape(inner, *shape)
  solve = _even_odd_solver if all(n % 2 == 0 for n in lattice) else _full_solver
  return solve(u, kappa, boundary, 0.0 if mu is None else mu, sources)


def _full_solver(
  u: Array, kappa: float, boundary: Boundary | None, mu: float | Array, sources: Array
) -> solvers.Solution:
  """D^{-1} on sources [n, Ns, Nc, V] through D^{-1} = D^dag (D D^dag)^{-1}."""
  d = dirac.twisted(u, kappa, mu, boundary) if dirac.is_twisted(mu) else dirac.wilson(u, kappa, boundary)
  solution = jax.vmap(lambda b: solvers.cg(dirac.normal(d).apply, b))(sources)
  return solution._replace(x=jax.vmap(d.adjoint)(solution.x))


def _even_odd_solver(
  u: Array, kappa: float, boundary: Boundary | None, mu: float | Array, sources: Array
) -> solvers.Solution:
  """D^{-1} by the Schur complement: x_o = M^{-1} rho (b_o + k H_oe T b_e), x_e = T (b_e + k H_eo x_o).

  T = (1 + i mu gamma5)^{-1} and rho^2 = 1 + mu^2 are one without a twisted mass.
  """
  lattice = sites.extents(u)
  to_even, to_odd = dirac.parity_blocks(u, boundary)
  m = dirac.schur(u, kappa, boundary, mu)

  def solve(b: Array) -> solvers.Solution:
    even, odd = checkerboard.split(b, lattice)
    source = odd + kappa * to_odd.apply(dirac.untwist(even, mu))
    solution = solvers.cg(dirac.normal(m).apply, (1 + mu**2) ** 0.5 * source if dirac.is_twisted(mu) else source)
    odd = m.adjoint(solution.x)
    even = even + kappa * to_even.apply(odd)
    even = dirac.untwist(even, mu)
    return solution._replace(x=checkerboard.merge(even, odd, lattice))

  return jax.vmap(solve)(sources)


@precision.compiled()
def field_strength(u: Array) -> Array:
  """Clover F_{mu nu}(x) = TA(sum of the four leaves)/4, antihermitian: [planes, Nc, Nc, V], planes as in loops.planes."""
  lattice = sites.extents(u)
  leaves = [loops.clover_leaf(u, mu, nu) for mu, nu in loops.planes(len(lattice))]
  return group.project(jnp.stack(leaves).reshape((len(leaves), *u.shape[1:3], -1))) / 4


def _density(a: Array, b: Array) -> Array:
  """-tr F F' summed over sites; real since both are antihermitian."""
  return -jnp.sum(a * jnp.swapaxes(b, -3, -2)).real


@precision.compiled()
def energy_density(u: Array) -> Array:
  """E = -(1/V) sum_x sum_{mu<nu} tr F F with the clover F; arXiv:1006.4518, eq. 2.1 (there -(1/2) over all mu, nu)."""
  f = field_strength(u)
  return _density(f, f) / f.shape[-1]


@precision.compiled()
def topological_charge(u: Array) -> Array:
  """Q of eq. 5 with the clover F: in 4D -(1/(32 pi^2)) sum eps tr F F, eps_{txyz} = +1; in 2D (1/2 pi) sum Im tr F_01.

  The sign of eq. 5 is for hermitian F; here F is antihermitian. In 2D it is zero for Nc > 1. Raises ValueError in 3D.
  """
  f, nd = field_strength(u), u.shape[0]
  if nd == 2:
    return jnp.sum(group.trace(f[0]).imag) / (2 * jnp.pi)
  if nd != 4:
    raise ValueError(f"the topological charge is defined in 2 and 4 dimensions, not {nd}")
  plane = {p: f[i] for i, p in enumerate(loops.planes(4))}
  # eps has 8 equal terms for each of the three ways to pair the planes.
  total = _density(plane[0, 1], plane[2, 3]) - _density(plane[0, 2], plane[1, 3]) + _density(plane[0, 3], plane[1, 2])
  return 8 * total / (32 * jnp.pi**2)
