"""Histogram comparison: normalisation, errors, and residuals of equal and unequal distributions."""

import numpy as np
import pytest
from scipy import stats

from flowqcd.analysis import histograms


def gaussian_ensembles(seed, shift=0.6, bias=0.0, num_flow=4000, num_hmc=2000):
  """Flow samples of N(-shift, 1) with log weights to N(0, 1), and direct samples of N(bias, 1)."""
  rng = np.random.default_rng(seed)
  flow = rng.normal(-shift, size=num_flow)
  return flow, 0.5 * (flow + shift) ** 2 - 0.5 * flow**2, rng.normal(bias, size=num_hmc)


def test_densities_integrate_to_one_and_follow_the_law():
  flow, log_w, hmc = gaussian_ensembles(0, num_flow=20_000)
  edges = np.concatenate([[-9], np.linspace(-2, 2, 9), [9]])
  result = histograms.compare(flow, log_w, hmc, edges, num_bootstrap=100)
  width = np.diff(edges)
  assert np.sum(result.density_flow * width) == pytest.approx(1, rel=1e-12)
  assert np.sum(result.density_hmc * width) == pytest.approx(1, rel=1e-12)
  p = np.diff(stats.norm.cdf(edges))
  assert np.all(np.abs(result.density_flow * width - p) < 4 * result.err_flow * width)
  # Multinomial error of an unweighted bin; 100 bootstraps know it to 7%.
  exact = np.sqrt(p * (1 - p) / len(hmc)) / width
  np.testing.assert_allclose(result.err_hmc, exact, rtol=0.3)


def test_unweighted_histogram_equals_numpy_including_the_last_edge():
  values = np.array([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])
  result = histograms.compare(values, np.zeros(6), values, 2, num_bootstrap=10)
  expected, edges = np.histogram(values, 2, density=True)
  np.testing.assert_array_equal(result.edges, edges)
  np.testing.assert_allclose(result.density_flow, expected, rtol=1e-14)
  np.testing.assert_allclose(result.density_hmc, expected, rtol=1e-14)
  assert np.isnan(result.residuals2).all()  # three entries a bin are too few to count


def test_weight_outside_the_range_counts_in_the_normalisation():
  hmc = np.linspace(0, 1, 100)
  flow = np.append(np.linspace(0, 1, 90), np.full(10, 5.0))
  result = histograms.compare(flow, np.zeros(100), hmc, 4, num_bootstrap=10)
  assert np.sum(result.density_flow * np.diff(result.edges)) == pytest.approx(0.9, rel=1e-12)


def test_residuals_of_equal_distributions_follow_chi2():
  comparisons = [histograms.compare(*gaussian_ensembles(seed), bins=15, num_bootstrap=150) for seed in range(25)]
  squares = histograms.residuals2(comparisons)
  summary = histograms.chi2_summary(squares, len(comparisons))
  assert summary.num_bins == len(squares) > 200
  assert summary.dof == len(squares) - 25
  assert summary.chi2 / summary.num_bins == pytest.approx(1, abs=3 * np.sqrt(2 / summary.dof))
  assert summary.p_value > 1e-3 and summary.ks_p_value > 1e-3


def test_p_values_of_equal_distributions_are_uniform():
  edges = np.linspace(0, 1, 9)
  p_values = []
  for seed in range(100):
    rng = np.random.default_rng(seed)
    result = histograms.compare(rng.random(500), np.zeros(500), rng.random(400), edges, 200)
    p_values.append(histograms.chi2_summary(result.residuals2).p_value)
  assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_residuals_of_different_distributions_are_large():
  flow, log_w, hmc = gaussian_ensembles(1, bias=0.3)
  result = histograms.compare(flow, log_w, hmc, 15, num_bootstrap=100)
  summary = histograms.chi2_summary(histograms.residuals2([result]))
  assert summary.p_value < 1e-6 and summary.ks_p_value < 1e-2


def test_a_region_the_flow_misses_is_counted():
  rng = np.random.default_rng(2)
  hmc, flow = rng.choice([-1.0, 1.0], 1000), -np.ones(1000)
  result = histograms.compare(flow, np.zeros(1000), hmc, np.array([-2.0, 0.0, 2.0]), 100)
  assert result.density_flow[1] == 0 and result.residuals2[1] > 100


def test_compare_all_keeps_the_order_and_shares_weights():
  flow, log_w, hmc = gaussian_ensembles(3, num_flow=300, num_hmc=200)
  panels = [histograms.Panel("x", flow, hmc), histograms.Panel("-2x", -2 * flow, -2 * hmc)]
  first, second = histograms.compare_all(panels, log_w, bins=5, num_bootstrap=20)
  np.testing.assert_allclose(second.density_flow, first.density_flow[::-1] / 2, rtol=1e-10)


def test_bad_input_is_refused():
  with pytest.raises(ValueError, match="flow must be finite"):
    histograms.compare(np.array([np.nan, 0]), np.zeros(2), np.zeros(2))
  with pytest.raises(ValueError, match="do not match"):
    histograms.compare(np.zeros(3), np.zeros(2), np.arange(2.0))
  with pytest.raises(ValueError, match="more bins than histograms"):
    histograms.chi2_summary(np.ones(4), 4)
