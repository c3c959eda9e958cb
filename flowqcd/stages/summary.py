"""The numbers of a run: estimates from flow and HMC, their agreement, and what each cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.analysis import histograms, statistics, trust, weights
from flowqcd.mcmc import metropolis
from flowqcd.runs import priors, theories
from flowqcd.runs.folder import Run
from flowqcd.runs.priors import Prior
from flowqcd.runs.theories import Theory
from flowqcd.stages import results
from flowqcd.stages.results import Data
from flowqcd.theory import torus
from flowqcd.types import Key


def steady(seconds: np.ndarray) -> float:
  """CPU seconds of all parts at the pace of the median one: without the compilation that the first one carries."""
  return float(np.median(seconds) * len(seconds))


def _metropolis(root: Key, data: Data) -> dict[str, Any]:
  """Independence Metropolis over the same samples: how often it accepts, and what is wrong with it, if anything."""
  chain = jax.device_get(metropolis.chain(root, jnp.asarray(data.log_w)))
  diagnosis = statistics.chain_diagnosis(chain.accepted[1:], data.flow["plaquette"][chain.index[1:]])
  return {
    "acceptance_metropolis": float(chain.accepted[1:].mean()),
    "metropolis_warnings": list(diagnosis.messages),
  }


def _joint(data: Data) -> dict[str, Any]:
  """Numbers of the joint model; its limit of many draws is the marginal model with the exact determinant."""
  if data.log_draws is None:
    return {}
  curve = results.draw_curve(data)
  spread = data.log_draws - data.flow_log_det[:, None]
  return {
    "num_pf_draws": data.log_draws.shape[1],
    "ess_joint": float(weights.ess(data.log_w)),
    "ess_joint_err": weights.ess_error(data.log_w),
    "ess_joint_exact_det": float(weights.ess(data.log_w_exact)),
    "ess_joint_by_draws": dict(zip(map(str, curve.draws), curve.ess)),
    # ln of the mean over all draws of an unbiased estimate of one.
    "log_mean_determinant_ratio": float(weights.log_mean_weight(spread.ravel())),
    "log_mean_determinant_ratio_err": float(weights.log_z(weights.log_mean_weight(spread)).error),
  }


def _exact(theory: Theory) -> dict[str, float]:
  """What is known exactly: pure gauge theory with plaquettes alone in two dimensions; nothing elsewhere."""
  if (
    theories.gauge_kind(theory).rest
    or theory.num_flavours
    or len(theory.lattice) != 2
    or not 0 < theory.beta / theory.nc <= 20
  ):
    return {}
  known = torus.exact(theory.nc, theory.beta, theory.lattice[0] * theory.lattice[1])
  return {"mean_plaquette_exact": known.plaquette, "log_z_exact": known.log_z}


def _error_warnings(data: Data) -> list[str]:
  """Errors among the numbers that may be too small."""
  found = [*trust.of_weights(data.log_w), *trust.of_ess(data.log_w_exact), *trust.of_chi2(data.log_w)]
  if data.log_draws is not None:
    found += [f"joint model: {text}" for text in trust.of_ess(data.log_w)]
  series = {"plaquette of all trajectories": data.trajectories["plaquette"]}
  series |= {name: data.hmc[name].real for name in ("polyakov", "energy")}
  if "charge" in data.hmc:
    series["topological charge squared"] = data.hmc["charge"] ** 2
  if "pion" in data.hmc:
    series["pion correlator at half time"] = data.hmc["pion"][..., data.hmc["pion"].shape[-1] // 2]
  for name, x in series.items():
    found += [f"{name}: {text}" for text in trust.of_chain(x.shape, statistics.gamma_method(x).tau_int)]
  return found


def numbers(run: Run, theory: Theory, prior: Prior, data: Data, chi2: histograms.Chi2Summary | None) -> dict[str, Any]:
  """Content of summary.json. Keys ending in _err are one-sigma errors; lists run over time slices.

  chi2: None where no bins of the histograms can be compared.
  """
  ess, accepted = float(weights.ess(data.log_w)), data.trajectories["accepted"]
  log_z, tau = weights.log_z(data.log_w), statistics.gamma_method(data.trajectories["plaquette"])
  count = len(data.log_w)
  boltzmann = weights.reweighted_mean_jackknife(np.zeros(accepted.size), np.exp(-data.trajectories["delta_h"].ravel()))
  independent = statistics.num_independent(accepted.size, tau.tau_int)
  summary = {
    "ess_marginal": float(weights.ess(data.log_w_exact)),
    "ess_marginal_err": weights.ess_error(data.log_w_exact),
    **_joint(data),
    "ess_haar": data.haar["ess"] if data.haar else None,
    "num_haar_samples": data.haar["num_samples"] if data.haar else 0,
    "flow_step_deviation": data.steps["deviation"] if data.steps else None,
    "flow_step_shift": data.steps["shift"] if data.steps else None,
    "weight_warnings": list(weights.diagnose(data.log_w).messages),
    "error_warnings": _error_warnings(data),
    **_metropolis(run.key(7), data),
    "num_flow_samples": count,
    "num_hmc_trajectories": int(accepted.size),
    "num_hmc_stored": int(data.hmc["plaquette"].size),
    "hmc_acceptance": float(accepted.mean()),
    "hmc_acceptance_err": float(statistics.mean_of_streams(accepted).error) if len(accepted) > 1 else None,
    "hmc_exp_minus_dh": float(boltzmann.value),
    "hmc_exp_minus_dh_err": float(boltzmann.error),
    "hmc_rms_dh": float(np.sqrt(np.mean(data.trajectories["delta_h"] ** 2))),
    "hmc_tau_int_plaquette": tau.tau_int,
    "hmc_tau_int_plaquette_err": tau.tau_int_error,
  }
  for name, pair in results.pairs(data, theories.num_planes(theory)).items():
    for ensemble, estimate in zip(("flow", "hmc"), pair):
      summary[f"{name}_{ensemble}"] = estimate.value
      summary[f"{name}_{ensemble}_err"] = estimate.error
  return (
    summary
    | _exact(theory)
    | {
      "log_z": float(log_z.value),
      "log_z_err": float(log_z.error),
      "log_z_relative_to": priors.reference(prior),
      "chi2_residuals": chi2.chi2 if chi2 else None,
      "chi2_num_bins": chi2.num_bins if chi2 else 0,
      "chi2_p_value": chi2.p_value if chi2 else None,
      "cpu_seconds_flow": float(data.cpu["flow"].sum()),
      "cpu_seconds_hmc": float(data.cpu["hmc"].sum()),
      "cpu_seconds_per_effective_sample_flow": steady(data.cpu["flow"]) / (count * ess),
      "cpu_seconds_per_effective_sample_hmc": steady(data.cpu["hmc"]) / independent,
    }
  )
