"""A thin slice of the coverage table, and that coverage sees errors that are wrong."""

import numpy as np
import pytest

from flowqcd.analysis import coverage, statistics, weights


def _found(simulation, repetitions=150, seeds=4):
  return {c.quantity: c for c in coverage.measure(simulation, repetitions, seeds)}


# 600 trials know a coverage of 0.68 to 0.019.
_WITHIN = 0.06


def _gaussian(ess, num):
  return lambda rng: coverage.gaussian_weights(rng, ess, num)


def test_weights_of_many_effective_samples_cover():
  found = _found(coverage.weighted(_gaussian(0.7, 1000)))
  for name in ("mean along ln w", "mean of another", "ln Z", "ln Z, jackknife", "ESS"):
    assert found[name].inside_68 == pytest.approx(0.683, abs=_WITHIN), name
    assert found[name].error_ratio == pytest.approx(1, abs=0.15), name
    assert found[name].warned < 0.05, name
    assert len(found[name].by_seed) == 4 and found[name].num == 600


def test_weights_of_few_effective_samples_do_not_cover_and_are_warned_of():
  found = _found(coverage.weighted(_gaussian(0.05, 256)))
  assert found["mean along ln w"].inside_68 < 0.6 and found["ESS"].inside_68 < 0.45
  assert found["mean along ln w"].warned > 0.95 and found["ESS"].warned == 1
  assert found["ESS"].bias > 1


@pytest.mark.parametrize("tau_int, streams, num", [(2.0, 1, 200), (2.0, 4, 50)])
def test_chains_cover(tau_int, streams, num):
  found = _found(coverage.chain(tau_int, streams, num), 60)
  assert found["mean of a chain"].inside_68 == pytest.approx(0.683, abs=0.1)
  assert abs(found["tau_int"].bias) < 0.3
  assert found["tau_int"].warned < 0.1


def test_short_chains_are_warned_of():
  assert _found(coverage.chain(4.0, 1, 80), 10)["mean of a chain"].warned > 0.8
  assert _found(coverage.chain(8.0, 8, 25), 10)["tau_int"].warned > 0.8


@pytest.mark.parametrize("streams", [2, 4])
def test_few_streams_cover_with_students_factor(streams):
  (found,) = coverage.measure(coverage.acceptance(0.8, streams, 100), 500, 4)
  assert found.inside_68 == pytest.approx(0.683, abs=0.03)


def test_ratios_and_differences_cover():
  (ratio,) = coverage.measure(coverage.cost_ratio(2.0, 1.0, 2, 200), 40, 4)
  assert ratio.inside_68 == pytest.approx(0.683, abs=0.11)
  for found in coverage.measure(coverage.difference(0.7, 500, 2.0, 2, 200), 50, 4):
    assert found.inside_68 == pytest.approx(0.683, abs=0.1), found.quantity


def test_p_values_of_figure3_are_uniform():
  found = _found(coverage.figure3(0.7, 300, 0.5, 0.0, 1, 300, 8), 20)
  # 80 trials know a coverage to 0.05; errors too small by a quarter would have 0.4.
  assert found["chi^2 of figure 3"].inside_68 == pytest.approx(0.683, abs=0.16)


def test_errors_that_are_wrong_are_seen():
  """Half the error, a bias of one error, and an error of zero."""

  def wrong(rng):
    x = rng.normal()
    return {
      "half": coverage.Trial(x, 0.5, 0.0),
      "biased": coverage.Trial(x + 1, 1.0, 0.0),
      "none": coverage.Trial(x, 0.0, 0.0, True),
    }

  found = _found(wrong, 500)
  assert found["half"].inside_68 == pytest.approx(0.383, abs=0.04)
  assert found["half"].error_ratio == pytest.approx(0.5, abs=0.03)
  assert found["biased"].inside_68 == pytest.approx(0.477, abs=0.04)
  assert found["biased"].bias == pytest.approx(1, abs=0.1)
  assert found["none"].inside_95 == 0 and found["none"].warned == 1 and np.isnan(found["none"].unwarned_68)
  with pytest.raises(ValueError, match="at least 2 repetitions"):
    coverage.measure(wrong, 1, 4)


def test_data_are_what_they_say():
  rng = np.random.default_rng(0)
  for data in (coverage.gaussian_weights(rng, 0.6, 200_000), coverage.power_weights(rng, 6.0, 200_000)):
    assert weights.ess(data.log_w) == pytest.approx(data.ess, rel=0.02)
    assert float(weights.log_mean_weight(data.log_w)) == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(
      weights.reweighted_mean_jackknife(data.log_w, data.observables).value, data.means, atol=0.015
    )
  series = coverage.ar1(rng, 3.0, (4, 20_000))
  assert statistics.gamma_method(series).tau_int == pytest.approx(3, rel=0.1)
  assert series.std() == pytest.approx(1, rel=0.03)
