"""Weights against closed forms: Gaussian importance sampling, where everything is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.analysis import figures, histograms, weights


def gaussian_log_weights(num, shift, seed=0):
  """Proposal N(0, 1), target N(shift, 1) unnormalised: Z = sqrt(2 pi), ESS = exp(-shift^2)."""
  x = np.random.default_rng(seed).normal(size=num)
  log_q = -0.5 * x**2 - 0.5 * np.log(2 * np.pi)
  return x, -0.5 * (x - shift) ** 2 - log_q


def test_ess_of_equal_and_one_hot_weights():
  assert weights.ess(np.full(100, -3.0)) == pytest.approx(1, rel=1e-14)
  one_hot = np.full(100, -np.inf)
  one_hot[7] = 2.0
  assert weights.ess(one_hot) == pytest.approx(1 / 100, rel=1e-14)
  assert weights.ess(np.log([1.0, 2.0, 3.0])) == pytest.approx(36 / (3 * 14), rel=1e-14)


def test_ess_of_lognormal_weights_is_exp_of_minus_variance():
  for sigma in (0.3, 0.8):
    log_w = sigma * np.random.default_rng(1).normal(size=200_000)
    assert weights.ess(log_w) == pytest.approx(np.exp(-(sigma**2)), rel=0.02)


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_ess_and_log_mean_weight_do_not_overflow(shift):
  log_w = np.random.default_rng(2).normal(size=(3, 50))
  np.testing.assert_allclose(weights.ess(log_w + shift), weights.ess(log_w), rtol=1e-10)
  np.testing.assert_allclose(weights.log_mean_weight(log_w + shift), np.log(np.exp(log_w).mean(-1)) + shift, rtol=1e-14)


def test_ess_traces_in_jax_with_a_batch_and_differentiates():
  log_w = np.random.default_rng(3).normal(size=(4, 64)).astype(np.float32)
  np.testing.assert_allclose(jax.jit(weights.ess)(jnp.asarray(log_w)), weights.ess(log_w), rtol=1e-5)
  np.testing.assert_allclose(
    jax.jit(weights.log_mean_weight)(jnp.asarray(log_w)), weights.log_mean_weight(log_w), rtol=1e-5
  )
  # d log(mean w) / d log w_i is the normalised weight.
  gradient = jax.grad(weights.log_mean_weight)(jnp.asarray(log_w[0]))
  np.testing.assert_allclose(gradient, weights.shares(log_w[0]), rtol=1e-5)


def test_invalid_weights_give_nan_not_a_number_that_looks_fine():
  for bad in (np.nan, np.inf):
    log_w = np.array([0.0, bad, 1.0])
    assert np.isnan(weights.ess(log_w)) and np.isnan(weights.log_mean_weight(log_w))
    assert np.isnan(jax.jit(weights.ess)(jnp.asarray(log_w)))
    with pytest.raises(ValueError, match="NaN"):
      weights.reweighted_mean(log_w, np.zeros(3))
  empty = np.full(3, -np.inf)
  assert np.isnan(weights.ess(empty)) and weights.log_mean_weight(empty) == -np.inf


def test_log_z_of_a_gaussian_integral():
  _, log_w = gaussian_log_weights(20_000, 0.7)
  value, error = weights.log_z(log_w)
  # var(w) / mean(w)^2 = 1 / ESS - 1 = exp(shift^2) - 1
  assert error == pytest.approx(np.sqrt((np.exp(0.49) - 1) / 20_000), rel=0.05)
  assert abs(value - 0.5 * np.log(2 * np.pi)) < 3 * error
  jackknife = weights.log_z_jackknife(log_w)
  assert jackknife.value == value
  assert jackknife.error == pytest.approx(error, rel=1e-3)


def test_log_z_errors_cover_the_truth():
  pulls = []
  for seed in range(300):
    _, log_w = gaussian_log_weights(500, 0.5, seed)
    value, error = weights.log_z(log_w)
    pulls.append((value - 0.5 * np.log(2 * np.pi)) / error)
  assert np.std(pulls) == pytest.approx(1, abs=0.12)  # three sigma of a standard deviation
  assert np.mean(pulls) == pytest.approx(0, abs=3 / np.sqrt(300))


def test_log_z_of_equal_weights_has_no_error():
  assert weights.log_z(np.full(10, 0.3)) == pytest.approx((0.3, 0))


def test_log_z_jackknife_survives_a_dominating_weight():
  log_w = np.zeros(10)
  log_w[0] = 40.0  # exp(40) + 9 == exp(40) in double precision
  replicas = np.append(np.full(9, 40 - np.log(9)), 0.0)
  error = weights.log_z_jackknife(log_w).error
  assert error == pytest.approx(3 * np.std(replicas), rel=1e-10)
  log_w[1:] = -np.inf
  assert weights.log_z_jackknife(log_w).error == np.inf


def test_ess_error_matches_the_scatter_of_repetitions():
  sizes, errors = [], []
  for seed in range(200):
    _, log_w = gaussian_log_weights(1000, 0.4, seed)
    sizes.append(weights.ess(log_w))
    errors.append(weights.ess_error(log_w))
  assert np.mean(errors) == pytest.approx(np.std(sizes), rel=0.2)
  assert np.mean(sizes) == pytest.approx(np.exp(-0.16), rel=0.01)


def test_reweighting_a_gaussian_to_another_mean():
  x, log_w = gaussian_log_weights(20_000, 0.7)
  observable = np.stack([x, x**2], axis=-1)
  estimate = weights.reweighted_mean(log_w, observable, num_bootstrap=200)
  assert estimate.value.shape == estimate.error.shape == (2,)
  assert np.all(np.abs(estimate.value - [0.7, 1.49]) < 3 * estimate.error)
  # var(sum w O / sum w) = int p^2/q (O - <O>)^2 / N = exp(shift^2) (1 + shift^2) / N for O = x
  exact = np.sqrt(np.exp(0.49) * 1.49 / 20_000)
  assert estimate.error[0] == pytest.approx(exact, rel=0.15)
  jackknife = weights.reweighted_mean_jackknife(log_w, observable)
  np.testing.assert_allclose(jackknife.value, estimate.value, rtol=1e-12)
  np.testing.assert_allclose(jackknife.error, estimate.error, rtol=0.2)


def test_reweighting_complex_observables_by_parts():
  x, log_w = gaussian_log_weights(2000, 0.3)
  y = np.random.default_rng(5).normal(size=x.shape)
  for function in (weights.reweighted_mean, weights.reweighted_mean_jackknife):
    both, real, imag = (function(log_w, obs) for obs in (x + 2j * y, x, 2 * y))
    assert both.value == pytest.approx(real.value + 1j * imag.value, rel=1e-12)
    assert both.error == pytest.approx(real.error + 1j * imag.error, rel=1e-10)


def test_reweighting_with_equal_weights_is_the_plain_mean_and_reproducible():
  x = np.random.default_rng(6).normal(size=1000)
  estimate = weights.reweighted_mean(np.full(1000, 1e4), x, seed=3)
  assert estimate.value == pytest.approx(x.mean(), rel=1e-12)
  assert estimate.error == pytest.approx(x.std() / np.sqrt(1000), rel=0.1)
  assert estimate == weights.reweighted_mean(np.full(1000, 1e4), x, seed=3)
  assert estimate.error != weights.reweighted_mean(np.full(1000, 1e4), x, seed=4).error


def test_reweighting_refuses_mismatched_lengths():
  with pytest.raises(ValueError, match="3 measurements do not match 4 weights"):
    weights.reweighted_mean(np.zeros(4), np.zeros(3))


def test_diagnose_is_silent_about_good_weights():
  _, log_w = gaussian_log_weights(5000, 1.0)
  diagnosis = weights.diagnose(log_w)
  assert diagnosis.messages == ()
  assert diagnosis.max_share == pytest.approx(weights.shares(log_w).max(), rel=1e-12)
  assert (diagnosis.num_samples, diagnosis.num_nan, diagnosis.num_zero) == (5000, 0, 0)


def test_diagnose_reports_one_dominating_sample_among_many():
  log_w = np.zeros(10_000)
  log_w[17] = np.log(150)  # 1.5% of the weight, yet 69% of sum w^2
  (message,) = weights.diagnose(log_w).messages
  assert message.startswith("dominated by one sample: 1.5%")


def test_diagnose_reports_too_few_effective_samples_nan_and_nothing():
  assert any("effective" in m for m in weights.diagnose(np.zeros(9)).messages)
  bad = weights.diagnose(np.array([np.nan, 0.0, -np.inf]))
  assert (bad.num_nan, bad.num_zero) == (1, 1) and np.isnan(bad.ess)
  assert bad.messages == ("1 of 3 log weights are NaN",)
  assert weights.diagnose(np.full(4, -np.inf)).messages == ("all weights are zero",)


def _complex_gaussian(shift, num=200_000):
  """x ~ N(0, 1) and log w of the target e^{-(x - i shift)^2/2}: ln w = i shift x + shift^2/2, mean <x> = i shift, Z = 1."""
  x = np.random.default_rng(11).normal(size=num)
  return 1j * shift * x + shift**2 / 2, x


def test_complex_weights_give_the_mean_of_a_shifted_gaussian():
  shift = 0.7
  log_w, x = _complex_gaussian(shift)
  observable = np.column_stack([x, x**2])
  exact = np.array([1j * shift, 1 - shift**2])
  few = weights.reweighted_mean(log_w[:4000], observable[:4000], 200)
  for found, error in (weights.reweighted_mean_jackknife(log_w, observable), few):
    assert (np.abs((found - exact).real) < 4 * error.real).all() and (
      np.abs((found - exact).imag) < 4 * error.imag
    ).all()
    assert (error.real > 0).all() and (error.imag > 0).all()
  # <w>/<|w|> = e^{-shift^2/2}, and the ESS is its square, since |w| is the same for all.
  phase = weights.average_phase(log_w)
  assert abs(phase.value - np.exp(-(shift**2) / 2)) < 4 * abs(phase.error) < 0.02
  np.testing.assert_allclose(weights.ess(log_w), np.abs(phase.value) ** 2, rtol=1e-12)
  np.testing.assert_allclose(weights.ess(jnp.asarray(log_w)), weights.ess(log_w), rtol=1e-12)
  assert weights.ess(log_w).dtype == float and weights.ess_error(log_w) < 0.01
  log_z = weights.log_z_jackknife(log_w)
  assert abs(log_z.value.real) < 4 * log_z.error.real and abs(log_z.value.imag) < 4 * log_z.error.imag


def test_signs_are_phases_and_positive_weights_have_none():
  w = np.array([1.0, -0.5, 2.0, 0.25])
  log_w = np.log(w + 0j)
  o = np.array([1.0, 2.0, 3.0, 4.0])
  np.testing.assert_allclose(weights.shares(log_w), w / w.sum(), atol=1e-15)
  np.testing.assert_allclose(weights.reweighted_mean_jackknife(log_w, o).value, (w * o).sum() / w.sum())
  np.testing.assert_allclose(weights.average_phase(log_w).value, w.sum() / np.abs(w).sum())
  np.testing.assert_allclose(weights.ess(log_w), w.sum() ** 2 / (4 * (w**2).sum()))
  positive = np.log(np.abs(w))
  assert weights.average_phase(positive) == (1, 0)
  assert weights.average_phase(positive).value.dtype == float
  for function in (weights.ess, weights.ess_error, weights.log_mean_weight):
    np.testing.assert_allclose(function(positive + 0j), function(positive), rtol=1e-14)


def test_a_strong_sign_problem_is_diagnosed_and_a_weak_one_is_not():
  assert weights.diagnose(_complex_gaussian(0.5, 1000)[0]).messages == ()
  found = weights.diagnose(_complex_gaussian(5.0, 1000)[0])
  assert any("effective samples" in message for message in found.messages)
  np.testing.assert_allclose(found.max_share, 1e-3)


def test_complex_weights_that_make_no_sense_are_refused():
  log_w, x = np.array([0, 1j, 0.5, 2j]), np.arange(4.0)
  for refused in (
    lambda: weights.log_z(log_w),
    lambda: histograms.compare(x, log_w, x),
    lambda: figures.log_weight_histogram(log_w),
  ):
    with pytest.raises(ValueError, match="must be real here"):
      refused()
  with pytest.raises(ValueError, match="NaN"):
    weights.average_phase(np.array([0, complex(0, np.nan)]))
