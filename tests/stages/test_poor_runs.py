"""Runs that are short, poor or broken end in a report that says what is wrong and which setting helps."""

import dataclasses

import numpy as np
import pytest

from flowqcd import experiment, presets
from flowqcd.analysis import coverage
from flowqcd.io import metrics
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import figures, health

SMOKE = presets.PRESETS["smoke"]
RNG = np.random.default_rng(5)


def _measured(rows, still=False):
  """What is measured of configurations; still: all alike."""
  values = lambda *shape: np.ones((rows, *shape)) if still else RNG.normal(size=(rows, *shape))
  return {
    "plaquette": values(), "mean_plaquette": values(), "polyakov": values() + 0j, "energy": values(), "charge": values(),
    "pion": np.exp(0.1 * values(4)), "flow_steps": np.ones(rows, int),
  }  # fmt: skip


def _report(folder, log_w, trajectories, delta_h=None, accepted=None, still=False, offsets=None):
  """The report and summary of a run with these weights, and HMC streams with this dH [streams, n]."""
  streams, thin = 2, 5
  config = dataclasses.replace(
    SMOKE, output=str(folder), hmc=HMC(streams=streams, trajectories=trajectories, thin=thin)
  )
  run, num = experiment.claim(config), len(log_w)
  flow = {"log_w": log_w, "log_q": np.zeros(num), "gauge_action": np.zeros(num), "log_det": np.zeros(num)}
  run.store("flow").append(flow, {"cpu_seconds": 1.0})
  run.store("flow-measured").append(_measured(num), {"cpu_seconds": 1.0})
  kept, shape = trajectories // thin, (streams, trajectories)
  plaquette = np.ones(shape) if still else RNG.normal(size=shape)
  plaquette = plaquette + (0 if offsets is None else np.reshape(offsets, (streams, 1)))
  columns = {
    "delta_h": np.zeros(shape) if delta_h is None else delta_h,
    "accepted": np.ones(shape, bool) if accepted is None else accepted,
    "plaquette": plaquette,
  }
  rows = {name: x.reshape(streams * kept, thin) for name, x in columns.items()}
  run.store("hmc").append({"u": np.zeros(streams * kept), **rows}, {"cpu_seconds": 1.0})
  run.store("hmc-measured").append(_measured(streams * kept, still), {"cpu_seconds": 1.0})
  figures.draw(run, config.theory, config.prior, config.measurement.bins, {})
  return (run.folder / "report.md").read_text(), metrics.read_json(run.folder / "summary.json")


def _weights(ess, num):
  return coverage.gaussian_weights(RNG, ess, num).log_w


def test_a_good_run_has_no_warnings(tmp_path):
  text, summary = _report(tmp_path / "run", _weights(0.9, 800), 2000)
  assert "Warning" not in text and "no error" not in text
  assert summary["num_hmc_failed"] == 0 and summary["hmc_warnings"] == []
  assert summary["chi2_num_bins"] > 0 and (tmp_path / "run" / "figure3.png").exists()


def test_a_handful_of_samples_and_trajectories(tmp_path):
  text, summary = _report(tmp_path / "run", np.zeros(3), 5)
  assert "HMC has 5 trajectories a stream, and 8 are needed for an error: raise hmc.trajectories." in text
  assert "2 samples make no chain: raise sampling.num_samples." in text
  assert "more samples (sampling.num_samples) or a better flow (training.num_steps) help." in text
  assert "No bins of figure 2 can be compared" in text and "lower measurement.bins" in text
  assert "CPU seconds per effective sample | 0.333 | unknown" in text
  assert summary["plaquette_hmc_err"] is None and summary["hmc_tau_int_plaquette"] is None
  assert not (tmp_path / "run" / "figure3.png").exists()


def test_one_sample_that_carries_all_weight(tmp_path):
  log_w = np.r_[2000.0, np.zeros(99)]
  text, summary = _report(tmp_path / "run", log_w, 2000)
  assert "plaquette has no error: flow: a single sample carries all the weight" in text
  assert "dominated by one sample: 100.0% of the weight is in one of 100" in text
  assert summary["plaquette_flow_err"] is None and summary["plaquette_hmc_err"] > 0


def test_streams_that_never_move(tmp_path):
  still = np.zeros((2, 40), bool)
  text, summary = _report(tmp_path / "run", _weights(0.9, 400), 40, np.full((2, 40), 1e5), still, still=True)
  assert "HMC streams 0, 1 never accepted a trajectory: raise hmc.steps or lower hmc.tau." in text
  assert "q2 has no error: HMC: streams 0, 1 of 2 are constant" in text and "| no error |" in text
  assert summary["hmc_acceptance"] == 0 and summary["num_hmc_failed"] == 0


def test_streams_that_have_not_forgotten_their_start(tmp_path):
  text, _ = _report(tmp_path / "run", _weights(0.9, 400), 400, offsets=[0, 9])
  assert "split R-hat 5" in text or "split R-hat 4" in text or "split R-hat 6" in text
  assert "raise hmc.thermalisation or hmc.trajectories" in text
  assert "plaquette has no error: HMC: stream means" in text


def test_trajectories_whose_solver_failed_are_counted_by_themselves(tmp_path):
  delta_h, accepted = RNG.normal(0, 0.01, (2, 400)), np.ones((2, 400), bool)
  delta_h[0, 3:10], accepted[0, 3:10] = np.nan, False
  delta_h[1, 5], accepted[1, 5] = np.inf, False
  delta_h[1, 7:90], accepted[1, 7:90] = 50.0, False
  text, summary = _report(tmp_path / "run", _weights(0.9, 400), 400, delta_h, accepted)
  assert summary["num_hmc_failed"] == 8 and ", 8 failed trajectories, <exp(-dH)> = " in text
  assert "in 8 of 800 HMC trajectories dH was no finite number" in text
  assert "theory.kappa = 0.15 may be beyond its critical value" in text and "that is 0.25 without gauge fields" in text
  finite = delta_h[np.isfinite(delta_h)]
  assert summary["hmc_exp_minus_dh"] == pytest.approx(np.exp(-finite).mean())
  assert summary["hmc_rms_dh"] == pytest.approx(np.sqrt((finite**2).mean()))


def test_without_quarks_it_is_the_integrator_that_failed():
  theory = dataclasses.replace(SMOKE.theory, num_flavours=0)
  delta_h, accepted = np.zeros((1, 20)), np.ones((1, 20), bool)
  delta_h[0, 4] = np.nan
  (text,) = health.of_hmc(theory, accepted, delta_h, RNG.normal(size=(1, 20)))
  assert text.endswith("the integrator ran away; raise hmc.steps or lower hmc.tau")


def test_low_acceptance_is_named():
  accepted = RNG.random((4, 400)) < 0.2
  (text,) = health.of_hmc(SMOKE.theory, accepted, np.zeros((4, 400)), RNG.normal(size=(4, 400)))
  assert text.startswith("HMC accepts 0.") and "raise hmc.steps" in text
