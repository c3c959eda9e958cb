"""One checker for each contract of flowqcd.types, applied to every implementation."""

import jax
import jax.numpy as jnp
import numpy as np
from fields import gauge_function, gauge_transform, translate

from flowqcd.flows import contract
from flowqcd.lattice import exponential, group, sites
from flowqcd.mcmc import hmc


def check_action(action, u, key, transform_fields=None, tol=1e-6):
  """Gauge invariance of the value, and the force against a central difference along a random direction.

  transform_fields: (fields, g) -> fields in the other gauge; None where there are no fields to transform.
  """
  lattice, nc = sites.extents(u), u.shape[1]
  # One program for the value and its terms: they share a solver.
  both, force_of = jax.jit(lambda u, f: (action.value(u, f), action.terms(u, f))), jax.jit(action.force)
  value_of = lambda u, fields: both(u, fields)[0]
  fields, fresh, *_ = refreshed = jax.jit(action.refresh)(key, u)
  value = value_of(u, fields)
  np.testing.assert_allclose(fresh, value, rtol=1e-10, atol=1e-9)
  added = lambda terms: sum(np.sum(part) for part in jax.tree.leaves(jax.device_get(terms)))
  np.testing.assert_allclose(added(both(u, fields)[1]), value, rtol=1e-10, atol=1e-9)
  np.testing.assert_allclose(added(refreshed.terms), value, rtol=1e-10, atol=1e-9)

  g = gauge_function(nc, lattice)
  moved = fields if transform_fields is None else transform_fields(fields, g)
  np.testing.assert_allclose(value_of(gauge_transform(u, g), moved), value, rtol=1e-10, atol=1e-9)

  v = sites.flatten(u)
  x = group.gaussian(jax.random.fold_in(key, 1), v.shape, v.dtype)
  force = sites.flatten(force_of(u, fields))
  assert np.abs(force + group.adjoint(force)).max() < 1e-10 * (1 + np.abs(force).max())
  slope = jnp.sum(group.to_coordinates(x) * group.to_coordinates(force))
  displaced = jax.jit(lambda e: sites.unflatten(group.mul(exponential.exp(e * x), v), lattice))
  at = lambda e: value_of(displaced(e), fields)
  step = 1e-4
  # Fourth-order central difference.
  difference = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
  np.testing.assert_allclose(slope, difference, rtol=tol, atol=tol)


def check_operator(operator_of, u, shape, transform=None, gamma5=None):
  """Adjoint, gamma5-hermiticity and gauge covariance of the operator at links u on fields of `shape`.

  transform: (psi, g) -> psi in the other gauge.
  """
  apply = jax.jit(lambda u, psi: operator_of(u).apply(psi))
  adjoint = jax.jit(lambda u, psi: operator_of(u).adjoint(psi))
  first, second = jax.random.normal(jax.random.key(5), (2, *shape), u.dtype)
  np.testing.assert_allclose(jnp.vdot(first, apply(u, second)), jnp.vdot(adjoint(u, first), second), rtol=1e-11)
  if gamma5 is not None:
    np.testing.assert_allclose(adjoint(u, first), gamma5(apply(u, gamma5(first))), atol=1e-12)
  if transform is not None:
    g = gauge_function(u.shape[1], sites.extents(u))
    other = apply(gauge_transform(u, g), transform(first, g))
    np.testing.assert_allclose(other, transform(apply(u, first), g), atol=1e-11)


def transform_spinor(psi, g):
  """g(x) psi(x) on flat spinors [..., Ns, Nc, V]."""
  return np.einsum("ijv,...sjv->...siv", np.reshape(g, (*g.shape[:2], -1)), psi)


def laplacian(values, v):
  """-d^a d^a of real functions of flat links v [Nd, Nc, Nc, V]: fourth-order differences along each coordinate."""
  nd, nc, volume = v.shape[0], v.shape[1], v.shape[-1]
  start = np.zeros((nd, len(group.basis(nc)), volume))
  moved = lambda x: values(group.mul(exponential.exp(group.from_coordinates(x, nc)), v))
  h, n = 0.02, start.size
  units = np.eye(n).reshape(-1, *start.shape)
  at = jax.jit(lambda e: jnp.sum(jax.lax.map(lambda d: moved(e * d), units, batch_size=64), axis=0))
  return (at(2 * h) + at(-2 * h) - 16 * (at(h) + at(-h)) + 30 * n * values(v)) / (12 * h * h)


def check_flow(flow, params, z, round_trip=1e-10, jacobian=None, equivariance=1e-10, offset=None):
  """Round trip, both log-determinants, gauge and translation equivariance of a flow on links z.

  jacobian: how far the log-determinant may be from the dense one; None leaves that out. offset: a translation that is a
  symmetry of the flow; None takes (1, 2, ...).
  """
  lattice = sites.extents(z)
  forward, inverse = jax.jit(flow.forward), jax.jit(flow.inverse)
  z = np.asarray(z)
  u, logdet = jax.device_get(forward(params, z))
  assert group.violation(sites.flatten(u)) < 1e-11
  back, back_logdet = inverse(params, u)
  assert np.abs(back - z).max() < round_trip
  assert abs(logdet + back_logdet) < round_trip * z[0, 0, 0].size * 10
  g = gauge_function(z.shape[1], lattice)
  other, other_logdet = forward(params, gauge_transform(z, g))
  np.testing.assert_allclose(other, gauge_transform(u, g), atol=equivariance)
  np.testing.assert_allclose(other_logdet, logdet, rtol=1e-10, atol=equivariance)
  offset = tuple(range(1, len(lattice) + 1)) if offset is None else offset
  other, other_logdet = forward(params, translate(z, offset))
  np.testing.assert_allclose(other, translate(u, offset), atol=equivariance)
  np.testing.assert_allclose(other_logdet, logdet, rtol=1e-10, atol=equivariance)
  if jacobian is not None:
    dense = contract.log_jacobian(lambda z: forward(params, z).point, z)
    assert abs(dense - logdet) < jacobian, f"dense {dense}, flow {logdet}"


def check_reversible(action, u, key, tau=0.5, steps=5, tol=1e-11, integrator=None):
  """Flipping the momentum and evolving again returns to the start."""
  from flowqcd.lattice import integrators

  integrator = integrator or integrators.LEAPFROG
  fields = jax.jit(action.refresh)(key, u).fields
  v = sites.flatten(u)
  momentum = group.gaussian(jax.random.fold_in(key, 1), v.shape, v.dtype)
  evolve = jax.jit(lambda u, p: hmc.evolve(action, u, p, fields, tau, steps, integrator))
  there = evolve(u, momentum)
  back = evolve(there.u, -there.momentum)
  assert np.abs(there.u - u).max() > 0.1
  assert np.abs(back.u - u).max() < tol
  assert np.abs(back.momentum + momentum).max() < tol
  assert abs(back.delta_h + there.delta_h) < tol * 100


def check_kernel(kernel, u, key, measure, exact, num_steps, thermalisation=50, sigmas=4.0):
  """The chain's mean of measure(u) is `exact` within its error. u: [streams, ...]; errors from stream means."""
  streams = u.shape[0]
  keys = jax.random.split(key, num_steps)

  def body(states, key):
    out = jax.vmap(kernel.step)(jax.random.split(key, streams), states)
    return out.state, jax.vmap(measure)(out.state.u)

  start = jax.jit(jax.vmap(kernel.init))(jax.random.split(key, streams), u)
  _, values = jax.jit(lambda s, k: jax.lax.scan(body, s, k))(start, keys)
  means = np.asarray(values)[thermalisation:].mean(axis=0)
  error = means.std(axis=0, ddof=1) / np.sqrt(streams)
  assert abs(means.mean(axis=0) - exact) < sigmas * error, f"{means.mean(axis=0)} +- {error}, exact {exact}"
  return error
