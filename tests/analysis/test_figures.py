"""Figures render, show the data they were given, and leave no global state."""

import io

import matplotlib
import numpy as np
import pytest

from flowqcd.analysis import figures, histograms, statistics


def rendered_size(figure):
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=50)
  return len(buffer.getvalue())


def four_comparisons():
  rng = np.random.default_rng(0)
  panels = [histograms.Panel(name, rng.normal(size=800), rng.normal(size=600)) for name in "PLCQ"]
  return histograms.compare_all(panels, 0.3 * rng.normal(size=800), bins=12, num_bootstrap=30)


@pytest.mark.filterwarnings("error")
def test_observable_histograms_has_a_density_and_a_ratio_per_panel():
  comparisons = four_comparisons()
  before = dict(matplotlib.rcParams)
  figure = figures.observable_histograms(["P", "L", "C", "Q"], comparisons)
  assert dict(matplotlib.rcParams) == before
  assert len(figure.axes) == 8
  upper, lower = figure.axes[:2]
  points = upper.containers[-1].lines[0].get_ydata()
  np.testing.assert_array_equal(points, comparisons[0].density_flow)
  counted = np.isfinite(comparisons[0].residuals2)
  ratios = lower.containers[-1].lines[0].get_ydata()
  expected = comparisons[0].density_flow / comparisons[0].density_hmc
  np.testing.assert_allclose(ratios[counted], expected[counted])
  assert lower.get_xlabel() == "P" and rendered_size(figure) > 5000
  with pytest.raises(ValueError, match="one label per comparison"):
    figures.observable_histograms(["P"], comparisons)


@pytest.mark.filterwarnings("error")
def test_residual_distribution_shows_a_normalised_density():
  squares = np.random.default_rng(1).normal(size=90) ** 2
  figure = figures.residual_distribution(squares, num_histograms=4, bins=10)
  (axes,) = figure.axes
  stairs = axes.patches[0].get_data()
  assert np.sum(stairs.values * np.diff(stairs.edges)) == pytest.approx(1, rel=1e-12)
  np.testing.assert_allclose(np.diff(np.sqrt(stairs.edges)), np.sqrt(stairs.edges[1]), rtol=1e-9)
  assert rendered_size(figure) > 3000


@pytest.mark.filterwarnings("error")
def test_the_other_figures_render():
  rng = np.random.default_rng(2)
  steps = np.arange(200)
  log_w = np.append(rng.normal(size=500), -np.inf)
  curve = statistics.Estimate(np.geomspace(1, 0.01, 4), np.full(4, 1e-3))
  for figure in (
    figures.training_curve(steps, np.exp(-steps / 50), 1 - np.exp(-(steps + 1) / 50)),
    figures.training_curve(steps, np.exp(-steps / 50), np.exp(-steps), 2.0 * steps, np.where(steps % 9, np.nan, 0.5)),
    figures.training_curve(steps[:3], np.ones(3), np.ones(3)),
    figures.log_weight_histogram(log_w, bins=20),
    figures.correlator(curve, curve),
    figures.ess_against_draws([1, 2, 4], [0.1, 0.2, 0.3], 0.4),
    figures.autocorrelations(
      {"P": [("HMC", np.arange(3.0), np.array([1, 0.1, 0.001]))] * 2, "Q": [("x", np.ones(2), np.ones(2))]}
    ),
    figures.flow_time_curve(np.arange(4), [("flow", curve), ("HMC", curve)]),
  ):
    assert rendered_size(figure) > 2000
