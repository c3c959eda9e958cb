"""Errors against closed forms: uncorrelated Gaussians, AR(1), and chains that are stuck."""

import numpy as np
import pytest
from scipy import signal

from flowqcd.analysis import statistics


def ar1(coefficient, shape, seed=0):
  """x_t = a x_{t-1} + e_t, stationary with unit variance: tau_int = (1 + a) / (1 - a) / 2."""
  noise = np.random.default_rng(seed).normal(size=shape)
  noise[..., 1:] *= np.sqrt(1 - coefficient**2)
  return signal.lfilter([1.0], [1.0, -coefficient], noise, axis=-1)


def test_bootstrap_error_of_the_mean_is_sigma_over_root_n():
  x = np.random.default_rng(0).normal(size=400)
  estimate = statistics.bootstrap(x, np.mean, num_bootstrap=1000)
  assert estimate.value == x.mean()
  assert estimate.error == pytest.approx(x.std() / 20, rel=0.08)


def test_bootstrap_sums_have_multinomial_moments():
  x = np.random.default_rng(1).normal(size=(300, 2))
  sums = statistics.bootstrap_sums(np.column_stack([x, np.ones(300)]), 4000, seed=2)
  assert sums.shape == (4000, 3)
  np.testing.assert_allclose(sums[:, 2], 300, rtol=1e-13)
  np.testing.assert_allclose(np.cov(sums[:, :2].T), 300 * np.cov(x.T, ddof=0), rtol=0.1, atol=20)


def test_jackknife_of_the_mean_is_exact():
  x = np.random.default_rng(2).normal(size=(50, 3))
  estimate = statistics.jackknife(x, lambda y: y.mean(axis=0))
  np.testing.assert_allclose(estimate.error, x.std(axis=0, ddof=1) / np.sqrt(50), rtol=1e-12)
  blocked = statistics.jackknife(x, lambda y: y.mean(axis=0), block=5)
  means = x.reshape(10, 5, 3).mean(axis=1)
  np.testing.assert_allclose(blocked.error, means.std(axis=0, ddof=1) / np.sqrt(10), rtol=1e-12)


def test_blocks_see_autocorrelation():
  x = ar1(0.8, 20_000, seed=3)  # tau_int = 4.5, the naive error is too small by 3
  exact = np.sqrt(9 / 20_000)
  assert statistics.bootstrap(x, np.mean, 300).error == pytest.approx(exact / 3, rel=0.15)
  assert statistics.bootstrap(x, np.mean, 300, block=100).error == pytest.approx(exact, rel=0.2)
  assert statistics.jackknife(x, np.mean, block=100).error == pytest.approx(exact, rel=0.2)


def test_too_few_blocks_are_refused():
  with pytest.raises(ValueError, match="at least two blocks"):
    statistics.jackknife(np.zeros(10), np.mean, block=6)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.8])
def test_gamma_method_knows_ar1(coefficient):
  result = statistics.gamma_method(ar1(coefficient, (4, 10_000), seed=4))
  tau_int = 0.5 * (1 + coefficient) / (1 - coefficient)
  assert abs(result.tau_int - tau_int) < 3 * result.tau_int_error + 0.01
  assert result.error == pytest.approx(np.sqrt(2 * tau_int / 40_000), rel=0.1)
  assert abs(result.mean) < 3 * result.error
  assert result.replica_p > 1e-3


def test_autocorrelation_of_ar1():
  rho = statistics.autocorrelation(ar1(0.7, (40, 5000), seed=5))
  assert rho.shape == (2500,) and rho[0] == 1
  # The variance of rho from N entries is at most (1 + 2 sum rho^2)/N: 0.004 here.
  np.testing.assert_allclose(rho[:20], 0.7 ** np.arange(20), atol=0.015)
  short = np.array([[1.0, 2.0, 4.0, 1.0, 3.0, 0.0, 3.0, 2.0]])
  centred = short[0] - 2
  np.testing.assert_allclose(
    statistics.autocorrelation(short)[1], np.mean(centred[1:] * centred[:-1]) / np.mean(centred**2)
  )
  with pytest.raises(statistics.FrozenStreamsError, match="equal"):
    statistics.autocorrelation(np.ones((2, 50)))


def test_gamma_method_errors_cover_the_truth_and_replica_p_is_uniform():
  series = ar1(0.5, (200, 4, 400), seed=5)
  results = [statistics.gamma_method(s) for s in series]
  pulls = np.array([r.mean / r.error for r in results])
  assert pulls.std() == pytest.approx(1, abs=3 / np.sqrt(2 * 200))
  assert np.mean([r.replica_p for r in results]) == pytest.approx(0.5, abs=3 / np.sqrt(12 * 200))


def test_gamma_method_of_many_short_streams():
  """Streams of 19 tau_int each: tau_int about each stream's own mean would be low by a quarter and more."""
  series = ar1(0.6, (100, 16, 38), seed=11)
  results = [statistics.gamma_method(s) for s in series]
  assert np.mean([r.tau_int for r in results]) == pytest.approx(2, rel=0.06)
  pulls = np.array([r.mean / r.error for r in results])
  assert pulls.std() == pytest.approx(1, abs=3 / np.sqrt(2 * 100))
  assert np.mean([r.replica_p for r in results]) == pytest.approx(0.5, abs=3 / np.sqrt(12 * 100))


def test_chain_mean_of_thinned_data_agrees():
  series = ar1(0.5, (2, 20_000), seed=6)
  full, thinned = (statistics.chain_mean(s) for s in (series, statistics.thin(series, 10)))
  assert abs(full.value - thinned.value) < 4 * thinned.error
  assert thinned.error == pytest.approx(np.sqrt(1 / 4000), rel=0.1)  # now independent
  assert statistics.num_independent(40_000, 1.5) == pytest.approx(13333.33, rel=1e-6)


def test_thin_keeps_the_last_of_each_group():
  np.testing.assert_array_equal(statistics.thin(np.arange(11), 5), [4, 9])
  with pytest.raises(ValueError, match="every"):
    statistics.thin(np.arange(3), 0)


def stuck_streams(num_stuck, num=8, length=200):
  """Streams that never accepted, each at its own point, among ones that move."""
  series = ar1(0.5, (num, length), seed=7)
  accepts = np.random.default_rng(8).random((num, length)) < 0.9
  series[:num_stuck] = series[:num_stuck, :1]
  accepts[:num_stuck] = False
  return accepts, series


@pytest.mark.parametrize("num_stuck", [1, 8])
def test_stuck_streams_are_named_and_refused(num_stuck):
  accepts, series = stuck_streams(num_stuck)
  names = ", ".join(str(s) for s in range(num_stuck))
  diagnosis = statistics.chain_diagnosis(accepts, series)
  assert diagnosis.never_moved == diagnosis.never_accepted == tuple(range(num_stuck))
  assert np.all(diagnosis.longest_rejection[:num_stuck] == 200)
  with pytest.raises(statistics.UnhealthyChainError, match=f"streams {names} accepted no proposal"):
    statistics.require_healthy(diagnosis)
  for function in (statistics.gamma_method, statistics.chain_mean):
    with pytest.raises(statistics.FrozenStreamsError, match=f"streams {names} of 8 are constant"):
      function(series)


def test_a_constant_series_is_frozen_in_single_precision_too():
  series = np.full((1, 50), 0.1, np.float32)
  with pytest.raises(statistics.FrozenStreamsError):
    statistics.gamma_method(series)
  assert np.isnan(statistics.split_r_hat(series))
  assert statistics.split_r_hat(np.repeat([[0.0], [1.0]], 50, axis=1)) == np.inf


def test_streams_around_different_points_are_refused():
  series = 0.01 * ar1(0.5, (8, 200), seed=9) + np.arange(8.0)[:, None]
  diagnosis = statistics.chain_diagnosis(np.ones((8, 200), bool), series)
  assert diagnosis.never_moved == () and diagnosis.r_hat > 100
  with pytest.raises(statistics.UnhealthyChainError, match="R-hat"):
    statistics.require_healthy(diagnosis)
  # Eight places and no more, however long the streams: fluctuations about their own means would promise 1e-3.
  assert statistics.gamma_method(series).error == pytest.approx(np.std(np.arange(8)) / np.sqrt(8), rel=0.1)
  with pytest.raises(statistics.InconsistentStreamsError, match="disagree"):
    statistics.chain_mean(series)


def test_a_chain_that_stalls_half_way_is_reported():
  accepts = np.ones((2, 100), bool)
  accepts[1, 40:95] = False
  diagnosis = statistics.chain_diagnosis(accepts, ar1(0.0, (2, 100)))
  assert list(diagnosis.longest_rejection) == [0, 55]
  assert diagnosis.messages == ("streams 1 rejected for more than half their length in a row",)


def test_a_healthy_chain_passes():
  series = ar1(0.5, (8, 500), seed=10)
  diagnosis = statistics.chain_diagnosis(np.arange(500)[None] % 20 != np.arange(8)[:, None], series)
  np.testing.assert_allclose(diagnosis.acceptance, 0.95)
  assert diagnosis.r_hat == pytest.approx(1, abs=0.03)
  statistics.require_healthy(diagnosis)


def test_bad_series_are_refused():
  for bad in (np.zeros((2, 3, 10)), np.zeros((2, 7)), np.zeros((2, 10), complex)):
    with pytest.raises(ValueError, match="series must be real"):
      statistics.gamma_method(bad)
  with pytest.raises(ValueError, match="not finite"):
    statistics.gamma_method(np.full((1, 10), np.nan))
