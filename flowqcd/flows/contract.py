"""What a flow of links promises, measured: an inverse, the Jacobian's log-determinant, and gauge equivariance."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.lattice import exponential, group, sites
from flowqcd.types import AnyArray, Array, Flow, Params


class Violations(NamedTuple):
  """How far a flow f is from its contract at links z: every entry is zero up to rounding and, where it has some, steps.

  unitarity: f(z) from the group. inverse: f^{-1}(f(z)) from z. logdets: the sum of the two. equivariance: f(z^g) from
  f(z)^g. invariance: logdet at z^g from that at z. jacobian: logdet from that of the dense matrix; NaN where left out.
  """

  unitarity: float
  inverse: float
  logdets: float
  equivariance: float
  invariance: float
  jacobian: float


def violations(flow: Flow, params: Params, z: AnyArray, seed: int = 0, dense: bool = True) -> Violations:
  """Violations at links z [Nd, Nc, Nc, *L] and a Haar-random gauge transformation g, in double precision.

  z is made unitary in it first, for the group is left by the rounding of single precision.

  dense: with the Jacobian, two evaluations for each of its Nd V dim columns: for lattices such as 4^2. Raises as the flow.
  """
  with jax.enable_x64(True):
    forward, inverse = jax.jit(flow.forward), jax.jit(flow.inverse)
    nc, lattice = z.shape[1], sites.extents(z)
    z = np.array(sites.unflatten(group.reunitarise(sites.flatten(jnp.asarray(z, complex))), lattice))
    u, logdet = jax.device_get(forward(params, z))
    back, back_logdet = jax.device_get(inverse(params, u))
    g = sites.unflatten(group.haar(jax.random.key(seed), (nc, nc, int(np.prod(lattice))), z.dtype), lattice)
    other, other_logdet = jax.device_get(forward(params, sites.gauge_transform(z, g)))
    far = lambda a, b: float(np.max(np.abs(a - b)))
    return Violations(
      float(group.violation(sites.flatten(u))),
      far(back, z),
      far(back_logdet, -logdet),
      far(other, sites.gauge_transform(u, g)),
      far(other_logdet, logdet),
      far(log_jacobian(lambda z: forward(params, z).point, z), logdet) if dense else float("nan"),
    )


def log_jacobian(forward: Callable[[np.ndarray], Array], z: AnyArray) -> float:
  """ln |det| of a compiled map of links z [Nd, Nc, Nc, *L] in group coordinates, U -> e^{x^a T^a} U on both sides, from the
  dense matrix.

  By central differences, which need no program but the map's own; short ones, for splines have kinks in their slopes. In
  double precision to about 1e-8 for each hundred columns.
  """
  z, h = np.asarray(z), 3e-6
  nd, nc, lattice = z.shape[0], z.shape[1], sites.extents(z)
  basis = group.basis(nc)
  moves = [_exponentials(sign * h * basis) for sign in (1, -1)]
  rows = lambda x: np.asarray(x).reshape(nd, nc, nc, -1)
  adjoint = rows(forward(z)).conj().swapaxes(1, 2)
  columns = []
  for mu, site in itertools.product(range(nd), np.ndindex(*lattice)):
    at = (mu, slice(None), slice(None), *site)
    for a in range(len(basis)):
      images = []
      for move in moves:
        moved = z.copy()
        moved[at] = move[a] @ z[at]
        images.append(rows(forward(moved)))
      slope = np.einsum("mijv,mjkv->mikv", (images[0] - images[1]) / (2 * h), adjoint)
      # x^a = -2 tr T^a x, since tr T^a T^b = -delta/2.
      columns.append(-2 * np.einsum("aij,mjiv->amv", basis, slope).real.ravel())
  return float(np.linalg.slogdet(np.array(columns))[1])


def _exponentials(x: np.ndarray) -> np.ndarray:
  """e^x of algebra elements [n, Nc, Nc]."""
  return np.moveaxis(np.asarray(exponential.exp(jnp.asarray(np.moveaxis(x, 0, -1)))), -1, 0)
