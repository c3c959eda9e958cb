import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import fixture_links, fixtures, gauge_function, links, tmlqcd

from flowqcd.lattice import group, sites
from flowqcd.theory import gauge, observables, wilson_flow


def test_velocity_is_the_gradient_of_the_wilson_action():
  # g0^2 d^a S_w with S_w = (2/g0^2) sum Re tr(1 - P) is the force at beta = 2 Nc.
  u = links(3, (2, 3, 4))
  v = wilson_flow.velocity(sites.flatten(u), (2, 3, 4))
  force = gauge.wilson_force(u, 6.0)
  np.testing.assert_allclose(sites.unflatten(v, (2, 3, 4)), -force, atol=1e-13)


@pytest.mark.parametrize("nc, lattice", [(1, (4, 5)), (2, (3, 4, 2)), (3, (2, 2, 3, 4))])
def test_flow_smooths_stays_in_the_group_and_is_covariant(nc, lattice):
  u, g = links(nc, lattice), gauge_function(nc, lattice)
  flowed = wilson_flow.flow(u, 0.37, 0.05)  # Not a multiple of the step.
  assert group.violation(sites.flatten(flowed)) < 1e-12
  assert observables.mean_plaquette(flowed) > observables.mean_plaquette(u) + 0.2
  other = wilson_flow.flow(sites.gauge_transform(u, g), 0.37, 0.05)
  np.testing.assert_allclose(other, sites.gauge_transform(flowed, g), atol=1e-12)


def test_steps_compose_and_rest_is_taken():
  u = links(2, (4, 4))
  twice = wilson_flow.flow(wilson_flow.flow(u, 0.1, 0.02), 0.25, 0.02)
  fine = wilson_flow.flow(u, 0.35, 0.002)
  np.testing.assert_allclose(twice, fine, atol=2e-5)
  np.testing.assert_array_equal(wilson_flow.flow(u, 0.0), u)


def test_adaptive_flow_agrees_with_small_steps():
  u = jnp.asarray(tmlqcd("0001"))
  fixed = wilson_flow.flow(u, 2.0, 0.01)
  errors = []
  for tol in (1e-3, 1e-5):
    result = jax.jit(lambda u, tol=tol: wilson_flow.adaptive(u, 2.0, tol))(u)
    assert result.max_error <= tol and int(result.steps) < 200
    assert group.violation(sites.flatten(result.u)) < 1e-11
    errors.append(abs(float(observables.topological_charge(result.u) - observables.topological_charge(fixed))))
  assert errors[0] < 5e-3 and errors[1] < 1e-4


def test_an_adaptive_flow_out_of_steps_is_nan():
  result = wilson_flow.adaptive(links(2, (4, 4)), 5.0, 1e-8, max_steps=3)
  assert np.isnan(result.u).all()


def test_charge_of_a_constant_field_in_2d():
  """Flux 2 pi n over the torus: every plaquette 2 pi n/V, whose clover is its sine."""
  extents, n = (6, 8), 3
  volume = 48
  t, x = np.indices(extents)
  field = 2 * np.pi * n / volume
  phase = np.zeros((2, *extents))
  phase[1] = field * t
  phase[0, -1] = -field * extents[0] * x[-1]  # The seam carries what the torus cannot close.
  u = np.exp(1j * phase)[:, None, None]
  expected = volume * np.sin(field) / (2 * np.pi)
  assert float(observables.topological_charge(u)) == pytest.approx(expected, rel=1e-12)
  assert expected == pytest.approx(n, rel=0.1)
  assert float(observables.topological_charge(u.conj())) == pytest.approx(-expected, rel=1e-12)


def test_charge_needs_two_or_four_dimensions():
  with pytest.raises(ValueError, match="not 3"):
    observables.topological_charge(links(2, (3, 3, 3)))


def test_parity_flips_the_charge_and_keeps_the_energy():
  """Reflection of x: charge odd, energy even."""
  u = fixture_links(next(e for e in fixtures() if e["name"].startswith("near")))
  mirrored = u[:, :, :, :, ::-1].copy()
  # The link along x from the mirrored site points backwards: U_x'(x) = U_x(-x-1)^dag.
  back = np.conj(np.swapaxes(mirrored[1], 0, 1))
  mirrored[1] = np.roll(back, -1, axis=3)
  assert float(observables.topological_charge(mirrored)) == pytest.approx(
    -float(observables.topological_charge(u)), rel=1e-9
  )
  assert float(observables.energy_density(mirrored)) == pytest.approx(float(observables.energy_density(u)), rel=1e-12)


@pytest.mark.parametrize("t, step", [(-1.0, 0.1), (1.0, 0.0)])
def test_impossible_times_are_named(t, step):
  with pytest.raises(ValueError, match="t >= 0"):
    wilson_flow.flow(links(1, (3, 3)), t, step)
