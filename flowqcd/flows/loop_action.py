"""Actions made of small loops, S~ = sum_k c_k W_k: values, gradient and Laplacian in one pass.

This is the basis that closes at next-to-leading order of the trivializing flow (Luescher, arXiv:0907.5491, sec. 4). With
M_i the 2(Nd-1) plaquettes that start along a link, sums over links and pairs i < j:
  W1 = 2 Re tr M_i M_j^dag, W2 = 2 Re tr M_i M_j, W3 = 2 Re tr M_i tr M_j^*, W4 = 2 Re tr M_i tr M_j;
over plaquettes: W0 = 2 Re tr P, W5 = 2 Re tr P^2, W6 = 2 Re (tr P)^2, W7 = |tr P|^2;
over the lines that wind around direction mu: W_{8+mu} = 2 Re tr line.

Pairs are never formed. With M = sum_i M_i, sum_{i<j} 2 Re tr M_i M_j^dag = tr M M^dag - sum_i tr 1 and so on: W1 to W4 are
squares of M less multiples of W5 to W7, and the gradient is a second sweep over plaquettes in which dW/dM is inserted
where the loop starts.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flowqcd.lattice import fusion, group, loops, precision, sites
from flowqcd.types import Array

NUM_LOCAL = 8
"""W0 to W7; the winding lines follow, one entry per direction."""


class LoopAction(NamedTuple):
  """At one configuration: loops W, here [8 + Nd], gradient T^a d^a S~ (flat links) and -d^a d^a S~ (a scalar)."""

  loops: Array
  gradient: Array
  laplacian: Array


def laplacian_table(nc: int, lattice: sites.Extents) -> tuple[np.ndarray, np.ndarray]:
  """(A, b) with L0 W_k = sum_j A_kj W_j + b_k, L0 = -sum over links of d^a d^a.

  From sum_a T^a_ij T^a_kl = -(delta_il delta_jk - delta_ij delta_kl/Nc)/2 (the second term is absent for U(1)): each link
  of a loop gives C_F, and each pair of traces that meet on a link joins or splits. Extents must be at least 3, so that
  plaquettes through a link share nothing else. Raises ValueError otherwise.
  """
  if min(lattice) < 3:
    raise ValueError(f"the loop basis needs extents of at least 3 in every direction, not {lattice}")
  nd, cf = len(lattice), group.casimir(nc)
  inv = 0.0 if nc == 1 else 1.0 / nc
  a, b = np.zeros((2, NUM_LOCAL + nd, NUM_LOCAL + nd))
  a[0, 0] = 4 * cf
  a[1, 1] = 6 * cf
  a[3, 3], a[3, 1] = 8 * cf + inv, -1
  a[2, 2] = a[4, 4] = 8 * cf - inv
  a[2, 4] = a[4, 2] = 1
  a[5, 5] = a[6, 6] = 8 * cf - 4 * inv
  a[5, 6] = a[6, 5] = 4
  a[7, 7] = 8 * cf + 4 * inv
  for mu, length in enumerate(lattice):
    a[NUM_LOCAL + mu, NUM_LOCAL + mu] = length * cf
  constant = b[0]
  constant[7] = -4 * nc * (nd * (nd - 1) // 2) * int(np.prod(lattice))
  return a, constant


def natural_scale(nc: int, nd: int) -> np.ndarray:
  """The coefficient c_k whose term moves log det of a unit of flow time by about one between Haar-random fields: [8 + Nd].

  1/(A_kk sqrt(2 n_k)) with n_k loops of variance about two each; so that coefficients in these units are of one size. On
  extents of 4, whatever the lattice: the same parameters are the same flow on every volume.
  """
  lattice = (4,) * nd
  table, _ = laplacian_table(nc, lattice)
  volume = int(np.prod(lattice))
  plaquettes = volume * nd * (nd - 1) // 2
  per_link = 2 * (nd - 1)
  pairs = volume * nd * per_link * (per_link - 1) // 2
  counts = [plaquettes] + [pairs] * 4 + [plaquettes] * 3 + [volume // n for n in lattice]
  return 1 / (np.diag(table) * np.sqrt(2.0 * np.array(counts)))


def evaluate(v: Array, lattice: sites.Extents, c: Array, lines: tuple[int, ...] = ()) -> LoopAction:
  """All of S~ = sum_k c_k W_k at flat links v [Nd, Nc, Nc, V]; c: [8 + Nd], real.

  lines: the directions whose winding lines are computed at all; elsewhere c and W must be and are zero.
  """
  corners = loops.plane_corners(v, lattice)
  m = fusion.materialise(loops.sum_at_links(corners, lattice))
  values = _local_loops([plane.origin for plane in corners], m)
  force = _local_force(v, lattice, corners, m, c)
  return _finish(v, lattice, c, lines, values, force)


def evaluate_plaquette(v: Array, lattice: sites.Extents, c: Array, lines: tuple[int, ...] = ()) -> LoopAction:
  """The same where only c_0 and lines are non-zero: a third of the work. W1 to W7 are returned as zero."""
  corners = loops.plane_corners(v, lattice)
  w0 = 2 * precision.added(jnp.sum(group.trace(plane.origin).real) for plane in corners)
  values = jnp.concatenate([w0[None], jnp.zeros(NUM_LOCAL - 1, w0.dtype)])
  return _finish(v, lattice, c, lines, values, 2 * c[0] * loops.sum_at_links(corners, lattice))


def _finish(
  v: Array,
  lattice: sites.Extents,
  c: Array,
  lines: tuple[int, ...],
  values: Array,
  force: Array,
) -> LoopAction:
  """Add the lines, project the force on the algebra, and apply the Laplacian's table."""
  winding = [jnp.zeros((), values.dtype)] * len(lattice)
  parts = [force[mu] for mu in range(len(lattice))]
  for mu in lines:
    line = fusion.materialise(loops.winding_line(v, lattice, mu))
    # Every site of a line reads the same trace.
    winding[mu] = 2 * jnp.sum(group.trace(line).real) / lattice[mu]
    parts[mu] = parts[mu] + 2 * c[NUM_LOCAL + mu] * line
  w = jnp.concatenate([values, jnp.stack(winding)])
  a, b = laplacian_table(v.shape[1], lattice)
  laplacian = jnp.dot(c, jnp.asarray(a, w.dtype) @ w + jnp.asarray(b, w.dtype))
  # d^a S~ = Re tr(T^a F), and T^a Re tr(T^a F) = -TA(F)/2.
  gradient = -0.5 * group.project(fusion.materialise(jnp.stack(parts)))
  return LoopAction(w, fusion.materialise(gradient), laplacian)


def _local_loops(plaquettes: list[Array], m: Array) -> Array:
  """W0 to W7 from the plaquettes [Nc, Nc, V] of each plane and link sums m [Nd, Nc, Nc, V]."""
  nc, num_links = m.shape[1], m.shape[0] * m.shape[-1]
  per_link = 2 * (m.shape[0] - 1)
  w0, w5, w6, w7 = precision.added(_plaquette_loops(p) for p in plaquettes)
  trm = group.trace(m)
  trm2 = jnp.sum(m * jnp.swapaxes(m, -3, -2), axis=(-3, -2))
  # Each plaquette is met from its four links; W5 and W6 carry a factor two already.
  return jnp.stack(
    [
      w0,
      jnp.sum(_abs2(m)) - float(per_link * nc * num_links),
      jnp.sum(trm2.real) - 2 * w5,
      jnp.sum(_abs2(trm)) - 4 * w7,
      jnp.sum((trm * trm).real) - 2 * w6,
      w5,
      w6,
      w7,
    ]
  )


def _plaquette_loops(p: Array) -> Array:
  """What the plaquettes of one plane add to W0, W5, W6, W7: [4]."""
  trace, square = group.trace(p), jnp.sum(p * jnp.swapaxes(p, -3, -2), axis=(-3, -2))
  sums = [2 * trace.real, 2 * square.real, 2 * (trace * trace).real, _abs2(trace)]
  return jnp.sum(jnp.stack(sums), axis=-1)


def _abs2(z: Array) -> Array:
  return z.real**2 + z.imag**2


def _local_force(v: Array, lattice: sites.Extents, corners: list[loops.PlaneCorners], m: Array, c: Array) -> Array:
  """F [Nd, Nc, Nc, V] with dS~ = Re tr(omega F) under U -> (1 + omega) U, for the terms W0 to W7.

  A plaquette a b c^dag d^dag is read as M at each of its four links; dW = Re tr(B dM) inserts B at the start of that link:
  dS~ = d Re tr[N a b c^dag d^dag + a B_b b c^dag d^dag + a b c^dag B_c^dag d^dag], N = B_a + B_d^dag + H,
  with N, B_b, B_c held fixed and H the plaquette's own term. Twelve products a plane.
  """
  trm = group.trace(m)
  b_link = 2 * c[1] * group.adjoint(m) + 2 * c[2] * m + _scalar(2 * c[3] * trm.conj() + 2 * c[4] * trm, m)
  inserted = loops.sides(fusion.materialise(b_link), lattice)
  links = [fusion.materialise_cotangents((v[mu], v[nu])) for mu, nu in loops.planes(len(lattice))]
  parts = [_plane_force(a, d, p, b, c) for (a, d), p, b in zip(links, corners, inserted)]
  return loops.gather_to_links(lattice, parts)


def _plane_force(a: Array, d: Array, plane: loops.PlaneCorners, b: loops.Sides, c: Array) -> loops.LinkParts:
  """One plane's part of F from its links a and d, its plaquettes, and B on its sides."""
  mul, adj = group.mul, group.adjoint
  p, trp = plane.origin, group.trace(plane.origin)
  c5, c6, c7 = c[5] - 2 * c[2], c[6] - 2 * c[4], c[7] - 4 * c[3]
  h = 4 * c5 * p + _scalar(2 * c[0] + 4 * c6 * trp + 2 * c7 * trp.conj(), p)
  at_mu, at_nu = plane.at_mu, adj(plane.at_nu)
  n, b_c = b.a + adj(b.d) + h, adj(b.c)
  # a B_b b c^dag d^dag = a B_b (b c^dag d^dag a) a^dag, and a b c^dag = d (d^dag a b c^dag).
  inner, outer = fusion.materialise((mul(b.b, at_mu), mul(at_nu, b_c)))
  first, second = fusion.materialise((mul(a, inner), mul(d, outer)))
  first, second = fusion.materialise((mul(first, adj(a)), mul(second, adj(d))))
  before, after = fusion.materialise((mul(p, n) + second, mul(n, p) + first))
  ahead_mu, ahead_nu = fusion.materialise((mul(adj(a), before), mul(adj(d), after)))
  parts = loops.LinkParts(
    before + first,
    -(after + second),
    mul(ahead_mu, a) + mul(at_mu, b.b),
    -mul(ahead_nu, d) - mul(b_c, at_nu),
  )
  return fusion.materialise(parts)


def _scalar(z: Array, like: Array) -> Array:
  """z times the unit matrix."""
  return z[..., None, None, :] * group.identity(like.shape[-2], like.dtype)
