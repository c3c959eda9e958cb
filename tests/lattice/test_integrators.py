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


def test_runge_kutta_is_of_third_order_in_links_and_integral():
  u = sites.flatten(links(3, (4, 4)))

  def rate(t, v):
    z = -(1 + t) * group.project(v)
    return z, jnp.sum((1 + t) ** 2 * group.trace(v).real)

  run = jax.jit(lambda n: integrators.transport(integrators.LUESCHER3, rate, u, 0.0, 1.0, n), static_argnums=0)
  exact = run(256)
  coarse, fine = run(8), run(16)
  for name in ("u", "integral"):
    far, near = (np.abs(getattr(x, name) - getattr(exact, name)).max() for x in (coarse, fine))
    assert np.log2(far / near) == pytest.approx(3, abs=0.4), name
