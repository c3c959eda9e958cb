import numpy as np
import pytest

from flowqcd.lattice import spin


@pytest.mark.parametrize("nd", [2, 4])
def test_clifford_algebra(nd):
  g, g5 = spin.gammas(nd), spin.gamma5(nd)
  size = spin.components(nd)
  for mu in range(nd):
    np.testing.assert_allclose(g[mu], g[mu].conj().T)
    np.testing.assert_allclose(g5 @ g[mu], -g[mu] @ g5)
    for nu in range(nd):
      expected = 2 * (mu == nu) * np.eye(size)
      np.testing.assert_allclose(g[mu] @ g[nu] + g[nu] @ g[mu], expected, atol=1e-15)
  product = np.linalg.multi_dot(list(g)) if nd > 2 else g[0] @ g[1]
  np.testing.assert_allclose(abs(product), abs(g5), atol=1e-15)


def test_gamma5_in_four_dimensions_is_the_product():
  np.testing.assert_allclose(np.linalg.multi_dot(list(spin.gammas(4))), spin.gamma5(4), atol=1e-15)


def test_no_gammas_in_three_dimensions():
  with pytest.raises(ValueError, match="not 3"):
    spin.gammas(3)
