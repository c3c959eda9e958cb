import jax
import numpy as np
import pytest
from checkers import check_flow
from fields import initial, links

from flowqcd.flows import family, trivializing

FLOW = trivializing.Config(steps=1, degree=2)
BOUNDARY = (-1.0, 1.0)


@pytest.mark.parametrize("kappa", [0.0, 0.12])
def test_is_the_trivializing_flow_at_every_coupling(kappa):
  """With traced couplings: the analytic part is theirs, and the learned one the polynomial at them."""
  lattice, beta = (4, 4), 1.3
  config = family.Config(2.0, 0.1 if kappa else 0.0, order=2)
  members = family.make(config, FLOW, 2, lattice, BOUNDARY)
  assert config.exponents == ([(1, 0), (2, 0), (0, 1), (1, 1), (0, 2)] if kappa else [(1, 0), (2, 0)])
  params = initial(members, 0.3)
  z = links(2, lattice)
  found = jax.jit(lambda *c: members.at(family.Couplings(*c)).forward(params, z))(beta, kappa)
  if kappa:
    target = trivializing.two_flavours(beta, kappa, 2, lattice, BOUNDARY)
  else:
    target = trivializing.pure_gauge(beta, 2)
  x, y = beta / 2.0, (kappa / 0.1) ** 4
  deviation = sum(x**i * y**j * d for (i, j), d in zip(config.exponents, params["deviation"]))
  expected = jax.jit(trivializing.make(FLOW, target, 2, lattice).forward)({"deviation": deviation}, z)
  np.testing.assert_allclose(found.point, expected.point, atol=1e-13)
  assert float(found.logdet) == pytest.approx(float(expected.logdet), rel=1e-12)


def test_vanishes_with_the_couplings():
  members = family.make(family.Config(2.0), FLOW, 3, (4, 4))
  params = {"deviation": np.ones_like(initial(members)["deviation"])}
  end = jax.jit(members.at(family.Couplings(0.0)).forward)(params, links(3, (4, 4)))
  np.testing.assert_allclose(end.point, links(3, (4, 4)), atol=1e-14)
  assert float(end.logdet) == 0


def test_contract():
  members = family.make(family.Config(2.0), trivializing.Config(steps=8, degree=2, lines=False), 2, (4, 4))
  params = initial(members, 0.1)
  check_flow(members.at(family.Couplings(1.0)), params, links(2, (4, 4)), round_trip=1e-6, equivariance=1e-10)


def test_bad_input():
  with pytest.raises(ValueError, match="positive reference_beta"):
    family.Config(0.0)
  with pytest.raises(ValueError, match="boundary phases"):
    family.make(family.Config(1.0, 0.1), FLOW, 3, (4, 4))
