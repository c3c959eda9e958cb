"""Errors that are too small to believe, in the numbers and texts of reports."""

import numpy as np
import pytest

from flowqcd import presets
from flowqcd.analysis import coverage
from flowqcd.stages import chain_report, compare_chains, report, results, summary


def _data(num, ess, length, joint_ess=None):
  rng = np.random.default_rng(0)
  log_w = coverage.gaussian_weights(rng, ess, num).log_w
  joint = log_w if joint_ess is None else coverage.gaussian_weights(rng, joint_ess, num).log_w
  series = lambda: coverage.ar1(rng, 2.0, (4, length))
  hmc = {name: series() for name in ("plaquette", "polyakov", "energy", "charge")}
  hmc["pion"] = rng.normal(size=(4, length, 4))
  return results.Data(
    joint, log_w, None if joint_ess is None else np.zeros((num, 2)), np.zeros(num), {}, hmc,
    {"plaquette": series()}, {}, None, None,
  )  # fmt: skip


def test_good_runs_have_none():
  assert summary._error_warnings(_data(2000, 0.8, 400)) == []
  assert summary._error_warnings(_data(2000, 0.8, 400, 0.7)) == []


def test_few_samples_and_short_chains():
  texts = summary._error_warnings(_data(100, 0.4, 400))
  assert len(texts) == 2 and "reweighted means" in texts[0] and "ESS may be lower" in texts[1]
  histograms, joint = summary._error_warnings(_data(2000, 0.8, 400, 0.25))
  assert histograms.startswith("chi^2 of histograms") and joint.startswith("joint model: the ESS may be lower")
  texts = summary._error_warnings(_data(2000, 0.8, 16))
  assert any(text.startswith("energy: errors of chains may be too small") for text in texts)


def test_reports_show_them():
  numbers = dict(
    num_flow_samples=10, ess_haar=None, ess_marginal=0.5, ess_marginal_err=0.1, log_z=1.0, log_z_err=0.1,
    log_z_relative_to="Haar", flow_step_shift=None, chi2_num_bins=3, chi2_residuals=2.0, chi2_p_value=0.5,
    acceptance_metropolis=0.5, weight_warnings=[], metropolis_warnings=[], hmc_warnings=[],
    error_warnings=["the ESS may be lower"],
  )  # fmt: skip
  assert "**Warning:** the ESS may be lower." in report._verdict(numbers)


@pytest.mark.parametrize("length, warned", [(400, False), (16, True)])
def test_comparisons_of_chains_show_them(length, warned):
  series = coverage.ar1(np.random.default_rng(1), 2.0, (4, length))
  chain = {"acceptance": 1.0, "milliseconds": 1.0} | compare_chains.estimate("plaquette", series, 1, 1.0)
  config = presets.PRESETS["su3_4d"]
  text = chain_report.markdown(config.theory, config.hmc, config.sweeps, 1.0, {"hmc": chain})
  assert ("**Warning:** HMC, plaquette: errors of chains may be too small" in text) == warned


def test_a_run_without_draws_has_no_curve_of_them():
  with pytest.raises(ValueError, match="has no draws"):
    results.draw_curve(_data(100, 0.8, 40))
