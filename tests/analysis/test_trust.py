import numpy as np
import pytest

from flowqcd.analysis import trust


def test_weights():
  """sqrt((1/ESS - 1)/N) with half the samples of weight zero is 1/sqrt(N)."""
  halves = lambda num: np.where(np.arange(num) % 2, 0.0, -np.inf)
  assert trust.of_weights(np.zeros(20)) == trust.of_weights(halves(206)) == ()
  (text,) = trust.of_weights(halves(200))
  assert "100 effective samples of ESS 0.5 give ln Z to 0.071 only" in text


def test_ess():
  assert trust.of_ess(np.zeros(100)) == ()
  (text,) = trust.of_ess(np.append(np.zeros(90), np.full(50, -np.inf)))
  assert "90 samples decide" in text
  (text,) = trust.of_ess(np.append(np.zeros(1000), 6.0))
  assert "1 samples decide" in text


@pytest.mark.parametrize(
  "shape, tau_int, words",
  [((4, 50), 4.0, None), ((4, 50), 4.1, "49 tau_int in all"), ((16, 24), 4.0, None), ((16, 23), 4.0, "5.8 tau_int")],
)
def test_chains(shape, tau_int, words):
  found = trust.of_chain(shape, tau_int)
  assert (not found) if words is None else words in found[0]


def test_chi2_of_histograms_is_trusted_above_an_ess_of_a_half():
  assert trust.of_chi2(np.zeros(100)) == ()
  (text,) = trust.of_chi2(np.where(np.arange(100) < 40, 0.0, -np.inf))
  assert "ESS 0.4" in text and "too often" in text
