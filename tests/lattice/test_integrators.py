import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import links

from flowqcd.lattice import group, integrators, sites
from flowqcd.mcmc import hmc
from flowqcd.theory import gauge


@pytest.mark.parametrize(
  "table, order",
  [(integrators.LEAPFROG, 2), (integrators.OMELYAN2, 2), (integrators.OMELYAN4, 4)],
)
def test_symplectic_order(table, order):
  np.testing.assert_allclose([sum(table.kicks), sum(table.drifts)], 1, rtol=1e-15)
  assert table.kicks == pytest.approx(table.kicks[::-1]), "a symmetric splitting is reversible"
  u = links(3, (4, 4))
  momentum = group.gaussian(jax.random.key(1), (2, 3, 3, 16), u.dtype)
  action = gauge.action(6.0)
  error = [float(hmc.evolve(action, u, momentum, (), 0.5, steps, table).delta_h) for steps in (6, 12)]
  assert np.log2(abs(error[0] / error[1])) == pytest.approx(order, abs=0.35)


def test_omelyan_s_second_order_has_the_smallest_error_term():
  """Kicks l, 1 - 2 l, l leave two commutators of third order, with factors a and b; a^2 + b^2 is stationary."""
  l = integrators.OMELYAN2.kicks[0]
  a, b = (1 - 6 * l + 6 * l * l) / 12, (1 - 6 * l) / 24
  assert a * (12 * l - 6) / 12 - b / 4 == pytest.approx(0, abs=1e-15)


def test_luescher_s_scheme():
  table = integrators.LUESCHER3
  np.testing.assert_allclose(table.previous, (0, -17 / 9, -1), rtol=1e-15)
  np.testing.assert_allclose(table.times, (0, 1 / 4, 2 / 3), rtol=1e-15)
  np.testing.assert_allclose(table.quadrature, (1 / 4, 0, 3 / 4), atol=1e-15)


@pytest.mark.parametrize("table, order, steps", [(integrators.LUESCHER3, 3, 8), (integrators.CARPENTER_KENNEDY4, 4, 4)])
def test_order_of_runge_kutta_in_links_and_integral(table, order, steps):
  for power in range(order):
    moments = np.dot(table.quadrature, np.array(table.times) ** power)
    assert moments == pytest.approx(1 / (power + 1), rel=1e-12)
  u = sites.flatten(links(3, (4, 4)))

  def rate(t, v):
    z = -(1 + t) * group.project(v)
    return z, jnp.sum((1 + t) ** 2 * group.trace(v).real)

  still = jax.jit(lambda u: integrators.transport(table, lambda t, v: (0 * v, (1 + t) ** 2), u, 0.0, 1.0, 3))(u)
  np.testing.assert_array_equal(still.u, u)
  assert float(still.integral) == pytest.approx(7 / 3, rel=1e-12)
  run = jax.jit(lambda n: integrators.transport(table, rate, u, 0.0, 1.0, n), static_argnums=0)
  exact, coarse, fine = run(128), run(steps), run(2 * steps)
  for name in ("u", "integral"):
    far, near = (np.abs(getattr(x, name) - getattr(exact, name)).max() for x in (coarse, fine))
    assert np.log2(far / near) == pytest.approx(order, abs=0.4), name
