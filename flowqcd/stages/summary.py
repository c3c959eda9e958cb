"""The numbers of a run: estimates from flow and HMC, their agreement, and what each cost."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.analysis import histograms, statistics, trust, weights
from flowqcd.io import ensembles, metrics
from flowqcd.mcmc import metropolis
from flowqcd.runs import settings
from flowqcd.stages import chains
from flowqcd.theory import torus


class Data(NamedTuple):
  """What a run has stored.

  log_w: [N], those that observables are reweighted with: of the joint model where there is one. log_w_exact: [N], of the
  marginal model with the exact determinant, and flow_log_det that [N]. log_draws: of the joint model [N, draws], or None.
  flow: {name: [N, ...]}; hmc: {name: [streams, n, ...]} of stored configurations; trajectories: {name: [streams, all
  trajectories]}; cpu: {stage: seconds per part [parts]}; haar: of haar.json, and steps: of flow_steps.json, or None.
  """

  log_w: np.ndarray
  log_w_exact: np.ndarray
  log_draws: np.ndarray | None
  flow_log_det: np.ndarray
  flow: dict[str, np.ndarray]
  hmc: dict[str, np.ndarray]
  trajectories: dict[str, np.ndarray]
  cpu: dict[str, np.ndarray]
  haar: dict[str, float] | None
  steps: dict[str, float] | None


def load(folder: pathlib.Path) -> Data:
  """Read a finished run. Raises EnsembleError where a part of it is missing."""
  flow, hmc = (ensembles.Ensemble.open(folder / name) for name in ("flow", "hmc"))
  flow_measured, hmc_measured = (ensembles.Ensemble.open(folder / f"{name}-measured") for name in ("flow", "hmc"))
  for source, measured in ((flow, flow_measured), (hmc, hmc_measured)):
    if source.num_parts != measured.num_parts:
      raise ensembles.EnsembleError(
        f"{measured.path} covers {measured.num_parts} of {source.num_parts} parts; run experiments.measure"
      )
  records = [folder / name for name in ("haar.json", "flow_steps.json")]
  joint = "log_w_joint" in flow.names
  return Data(
    flow.read("log_w_joint" if joint else "log_w"),
    flow.read("log_w"),
    flow.read("log_draws") if joint else None,
    flow.read("log_det"),
    {name: flow_measured.read(name) for name in flow_measured.names},
    {name: chains.series(hmc_measured, name) for name in hmc_measured.names},
    {name: chains.steps(hmc, name) for name in ("accepted", "delta_h", "plaquette")},
    {name: store.attributes("cpu_seconds") for name, store in (("flow", flow), ("hmc", hmc))},
    *(metrics.read_json(record) if record.exists() else None for record in records),
  )


class Pair(NamedTuple):
  """The same observable from both ensembles."""

  flow: statistics.Estimate
  hmc: statistics.Estimate


def pairs(config: settings.Experiment, data: Data) -> dict[str, Pair]:
  """Expectation values by name: plaquette (eq. 2), mean_plaquette, polyakov (real part), pion [T], q2, energy.

  The plaquette of HMC is averaged over all trajectories, the rest over stored configurations; errors are jackknife
  for the flow and the Gamma method for HMC.
  """
  reweighted = lambda x: weights.reweighted_mean_jackknife(data.log_w, x)
  nd = len(config.theory.lattice)
  planes = nd * (nd - 1) // 2
  plaquette = statistics.chain_mean(data.trajectories["plaquette"])
  found = {
    "plaquette": Pair(reweighted(data.flow["plaquette"]), _scaled(plaquette, planes)),
    "mean_plaquette": Pair(reweighted(data.flow["mean_plaquette"]), plaquette),
  }
  for name in ("polyakov", "energy"):
    found[name] = Pair(reweighted(data.flow[name].real), statistics.chain_mean(data.hmc[name].real))
  if "charge" in data.flow:
    squares = data.flow["charge"] ** 2, data.hmc["charge"] ** 2
    found["q2"] = Pair(reweighted(squares[0]), statistics.chain_mean(squares[1]))
  if "pion" in data.flow:
    means = [statistics.chain_mean(series) for series in np.moveaxis(data.hmc["pion"], -1, 0)]
    hmc = statistics.Estimate(np.array([m.value for m in means]), np.array([m.error for m in means]))
    found["pion"] = Pair(reweighted(data.flow["pion"]), hmc)
  return found


def _scaled(estimate: statistics.Estimate, factor: float) -> statistics.Estimate:
  return statistics.Estimate(factor * estimate.value, factor * estimate.error)


def panels(data: Data) -> list[histograms.Panel]:
  """The histograms of figure 2: plaquette, Polyakov loop, pion correlator at half time, topological charge.

  HMC's stored configurations are thinned further where an observable's tau_int asks for it.
  """
  half = data.flow["pion"].shape[-1] // 2 if "pion" in data.flow else 0
  choices = [
    (r"plaquette $P$", "plaquette", lambda x: x),
    (r"Polyakov loop Re $L$", "polyakov", lambda x: x.real),
    (rf"pion correlator $C_\pi({half})$", "pion", lambda x: x[..., half]),
    (r"topological charge $Q$", "charge", lambda x: x),
  ]
  choices = [(label, name, f) for label, name, f in choices if name in data.flow]
  series = [(label, f(data.flow[name]), f(data.hmc[name])) for label, name, f in choices]
  every = statistics.independent_every([hmc for _, _, hmc in series])
  return [histograms.Panel(label, flow, statistics.thin(hmc, every).ravel()) for label, flow, hmc in series]


def steady(seconds: np.ndarray) -> float:
  """CPU seconds of all parts at the pace of the median one: without the compilation that the first one carries."""
  return float(np.median(seconds) * len(seconds))


def _metropolis(config: settings.Experiment, data: Data) -> dict[str, Any]:
  """Independence Metropolis over the same samples: how often it accepts, and what is wrong with it, if anything."""
  key = jax.random.fold_in(jax.random.key(config.seed), 7)
  chain = jax.device_get(metropolis.chain(key, jnp.asarray(data.log_w)))
  diagnosis = statistics.chain_diagnosis(chain.accepted[1:], data.flow["plaquette"][chain.index[1:]])
  return {
    "acceptance_metropolis": float(chain.accepted[1:].mean()),
    "metropolis_warnings": list(diagnosis.messages),
  }


class DrawCurve(NamedTuple):
  """ESS of the joint model against the number of draws a configuration."""

  draws: list[int]
  ess: list[float]


def draw_curve(data: Data) -> DrawCurve:
  """For 1, 2, 4, ... draws up to all; the mean over the disjoint groups that the stored draws make."""
  marginal = data.log_w_exact - data.flow_log_det
  total = data.log_draws.shape[1]
  draws = [*(2**i for i in range((total - 1).bit_length())), total]
  values = []
  for n in draws:
    groups = data.log_draws[:, : total // n * n].reshape(len(data.log_draws), -1, n)
    log_mean = weights.log_mean_weight(groups)
    values.append(float(weights.ess((marginal[:, None] + log_mean).T).mean()))
  return DrawCurve(draws, values)


def _joint(data: Data) -> dict[str, Any]:
  """Numbers of the joint model; its limit of many draws is the marginal model with the exact determinant."""
  if data.log_draws is None:
    return {}
  curve = draw_curve(data)
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


def _exact(theory: settings.Theory) -> dict[str, float]:
  """What is known exactly: pure gauge theory in two dimensions; nothing elsewhere."""
  if theory.num_flavours or len(theory.lattice) != 2 or not 0 < theory.beta / theory.nc <= 20:
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


def numbers(config: settings.Experiment, data: Data, chi2: histograms.Chi2Summary | None) -> dict[str, Any]:
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
    **_metropolis(config, data),
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
  for name, pair in pairs(config, data).items():
    for ensemble, estimate in zip(("flow", "hmc"), pair):
      summary[f"{name}_{ensemble}"] = estimate.value
      summary[f"{name}_{ensemble}_err"] = estimate.error
  return (
    summary
    | _exact(config.theory)
    | {
      "log_z": float(log_z.value),
      "log_z_err": float(log_z.error),
      "log_z_relative_to": f"pure gauge theory at beta = {config.prior.beta}" if config.prior.beta else "Haar",
      "chi2_residuals": chi2.chi2 if chi2 else None,
      "chi2_num_bins": chi2.num_bins if chi2 else 0,
      "chi2_p_value": chi2.p_value if chi2 else None,
      "cpu_seconds_flow": float(data.cpu["flow"].sum()),
      "cpu_seconds_hmc": float(data.cpu["hmc"].sum()),
      "cpu_seconds_per_effective_sample_flow": steady(data.cpu["flow"]) / (count * ess),
      "cpu_seconds_per_effective_sample_hmc": steady(data.cpu["hmc"]) / independent,
    }
  )
