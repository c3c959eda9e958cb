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
from flowqcd.stages import health, results
from flowqcd.stages.results import Data
from flowqcd.theory import torus
from flowqcd.types import Key


def _metropolis(root: Key, data: Data) -> dict[str, Any]:
  """Independence Metropolis over the same samples: how often it accepts, and what is wrong with it, if anything."""
  chain = jax.device_get(metropolis.chain(root, jnp.asarray(data.log_w)))
  accepted, series = chain.accepted[1:], data.flow["plaquette"][chain.index[1:]]
  return {
    "acceptance_metropolis": float(accepted.mean()),
    "metropolis_warnings": health.of_metropolis(accepted, series),
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
  series |= {name: np.real(data.hmc[name]) for name in ("polyakov", "energy")}
  if "charge" in data.hmc:
    series["topological charge squared"] = data.hmc["charge"] ** 2
  if "pion" in data.hmc:
    series["pion correlator at half time"] = data.hmc["pion"][..., data.hmc["pion"].shape[-1] // 2]
  for name, x in series.items():
    tau = health.gamma_method(x)
    found += [f"{name}: {text}" for text in trust.of_chain(x.shape, tau.tau_int)] if tau else []
  return found


def _hmc(theory: Theory, data: Data) -> dict[str, Any]:
  """Numbers of HMC by itself; None where there is no such number."""
  columns = [data.trajectories[name] for name in ("accepted", "delta_h", "plaquette")]
  accepted, delta_h, plaquette = columns
  tau, finite = health.gamma_method(plaquette), delta_h[np.isfinite(delta_h)]
  boltzmann = health.reweighted_mean(np.zeros(len(finite)), np.exp(-finite)).estimate if len(finite) > 1 else None
  independent = statistics.num_independent(accepted.size, tau.tau_int) if tau else None
  return {
    "num_hmc_trajectories": int(accepted.size),
    "num_hmc_stored": int(data.hmc["plaquette"].size),
    "num_hmc_failed": health.failures(delta_h),
    "hmc_warnings": health.of_hmc(theory, *columns),
    "hmc_acceptance": float(accepted.mean()),
    "hmc_acceptance_err": float(statistics.mean_of_streams(accepted).error) if len(accepted) > 1 else None,
    "hmc_exp_minus_dh": float(boltzmann.value) if boltzmann else None,
    "hmc_exp_minus_dh_err": float(boltzmann.error) if boltzmann else None,
    "hmc_rms_dh": float(np.sqrt(np.mean(finite**2))) if len(finite) else None,
    "hmc_tau_int_plaquette": tau.tau_int if tau else None,
    "hmc_tau_int_plaquette_err": tau.tau_int_error if tau else None,
    "cpu_seconds_per_effective_sample_hmc": data.costs["hmc"].steady / independent if independent else None,
  }


def numbers(run: Run, theory: Theory, prior: Prior, data: Data, chi2: histograms.Chi2Summary | None) -> dict[str, Any]:
  """Content of summary.json. Keys ending in _err are one-sigma errors; lists run over time slices.

  What has no number, or no error, is None there, and a line of `error_warnings` or `hmc_warnings` says why. chi2: None
  where no bins of the histograms can be compared.
  """
  ess, count = float(weights.ess(data.log_w)), len(data.log_w)
  log_z = weights.log_z(data.log_w)
  pairs = results.pairs(data, theories.num_planes(theory))
  no_errors = [f"{name} has no error: {text}" for name, pair in pairs.items() for text in pair.troubles]
  summary = {
    "ess_marginal": float(weights.ess(data.log_w_exact)),
    "ess_marginal_err": weights.ess_error(data.log_w_exact),
    **_joint(data),
    "ess_haar": data.haar["ess"] if data.haar else None,
    "num_haar_samples": data.haar["num_samples"] if data.haar else 0,
    "flow_step_deviation": data.steps["deviation"] if data.steps else None,
    "flow_step_shift": data.steps["shift"] if data.steps else None,
    "weight_warnings": list(weights.diagnose(data.log_w).messages),
    "error_warnings": [*_error_warnings(data), *no_errors],
    **_metropolis(run.key(7), data),
    "num_flow_samples": count,
    **_hmc(theory, data),
  }
  for name, pair in pairs.items():
    for ensemble, estimate in (("flow", pair.flow), ("hmc", pair.hmc)):
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
      "cpu_seconds_flow": data.costs["flow"].total,
      "cpu_seconds_hmc": data.costs["hmc"].total,
      "cpu_seconds_per_effective_sample_flow": data.costs["flow"].steady / (count * ess),
    }
  )
