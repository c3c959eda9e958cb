import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fields import links

from flowqcd.lattice import checkerboard, loops, sites
from flowqcd.mcmc import sweeps


@pytest.mark.parametrize("nc, lattice", [(1, (2, 6)), (2, (4, 2, 2)), (3, (4, 2, 6, 2))])
def test_staples_of_halves(nc, lattice):
  u = links(nc, lattice)
  halves = sweeps.split(u)
  np.testing.assert_array_equal(sweeps.merge(halves, lattice), u)
  for mu in range(len(lattice)):
    whole = loops.flat_staple(sites.flatten(u), lattice, mu)
    for parity, half in enumerate(checkerboard.split(whole, lattice)):
      np.testing.assert_allclose(sweeps.staple(halves, lattice, mu, parity), half, atol=1e-13)
      np.testing.assert_allclose(sweeps.gathered_staple(halves, lattice, mu, parity), half, atol=1e-13)


def test_every_link_is_updated_once_with_staples_of_the_moment():
  lattice = (4, 2, 2)
  u = links(2, lattice)
  seen = []

  def update(key, links, staple):
    del key
    return -links, jnp.sum(links * jnp.swapaxes(staple, 0, 1)).real

  swept = sweeps.sweep(jax.random.key(0), sweeps.split(u), lattice, update)
  np.testing.assert_allclose(sweeps.merge(swept.halves, lattice), -u, atol=1e-14)
  # The same by hand: after each turn, plaquettes with one or three turned links have changed sign.
  now = np.array(u)
  parity = sites.parity(lattice)
  for mu in range(3):
    for p in (0, 1):
      both = np.einsum("ij...,ji...->...", now[mu], loops.staple(jnp.asarray(now), mu)).real
      seen.append(both[parity == p].sum())
      now[mu] = np.where(parity == p, -now[mu], now[mu])
  np.testing.assert_allclose(swept.info, seen, atol=1e-12)


def test_odd_extents_are_refused():
  with pytest.raises(checkerboard.ParityError, match="even extents"):
    sweeps.split(links(3, (4, 3)))
