"""The report of a run in Markdown, from its summary alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flowqcd.runs.theories import Theory

_CAPTIONS = {
  "figure2": "Observables from the reweighted flow and from HMC, and their ratio.",
  "figure3": "Squared residuals of all bins above, against chi^2 with one degree of freedom.",
  "log_weights": "Log weights under the flow, and reweighted to the target.",
  "pion": "Pion correlator from a point source, D = 1 - kappa H.",
  "draws": "ESS of the joint model against the number of pseudofermion draws for each configuration.",
  "training": "Training of the marginal model: loss and ESS per batch.",
  "conditional": "Training of the conditional model: loss and ESS per batch.",
}
_ROWS = (
  ("plaquette", "plaquette, eq. 2"),
  ("mean_plaquette", "plaquette, per plaquette"),
  ("polyakov", "Polyakov loop, Re tr, eq. 3"),
  ("pion", "pion correlator, eq. 4"),
  ("q2", "topological charge squared, eq. 5, at the flow time"),
  ("energy", "energy density at the flow time"),
)


def number(value: float, error: float) -> str:
  """A value with its error in brackets, on the last two digits: 0.36512(43)."""
  if not (math.isfinite(value) and math.isfinite(error) and error > 0):
    return f"{value:.6g}"
  # The exponent of the error as printed: 0.00996 rounds up to 0.010.
  digits = max(0, 1 - int(f"{error:.1e}".split("e")[1]))
  scaled = round(error * 10**digits)
  if digits > 5 and abs(value) < 1e-2:
    exponent = math.floor(math.log10(max(abs(value), error)))
    return f"{number(value / 10.0**exponent, error / 10.0**exponent)}e{exponent}"
  shown = f"{scaled}" if digits else f"{error:.0f}"
  return f"{value:.{digits}f}({shown})"


def title(theory: Theory) -> str:
  """The theory in a line: group, lattice, gauge action, couplings."""
  twist = f", twisted mass {theory.twisted_mass}" if theory.twisted_mass else ""
  quarks = f"N_f = {theory.num_flavours}, kappa = {theory.kappa}{twist}" if theory.num_flavours else "no quarks"
  group = f"SU({theory.nc})" if theory.nc > 1 else "U(1)"
  lattice = "x".join(map(str, theory.lattice))
  return f"{group}, {lattice}, {theory.gauge_action} action, beta = {theory.beta}, {quarks}"


def markdown(theory: Theory, settings: Mapping[str, Any], numbers: Mapping[str, Any], figures: Sequence[str]) -> str:
  """The whole report. settings: {field: value} of the run. figures: names of PNG files beside it."""
  parts = [
    f"# Flow against HMC: {title(theory)}\n",
    _verdict(numbers),
    _table(numbers),
    _costs(numbers),
    *(f"![{_CAPTIONS[name]}]({name}.png)\n\n*{_CAPTIONS[name]}*\n" for name in figures),
    "## Configuration\n",
    "\n".join(f"- `{key}`: {value}" for key, value in settings.items()),
  ]
  return "\n".join(parts) + "\n"


def _verdict(n: Mapping[str, Any]) -> str:
  haar = f" (plain reweighting from Haar: {n['ess_haar']:.1e})" if n["ess_haar"] else ""
  lines = [
    f"{n['num_flow_samples']} flow samples have an effective sample size of "
    f"**{number(n['ess_marginal'], n['ess_marginal_err'])}** per sample{haar}; ln Z = "
    f"{number(n['log_z'], n['log_z_err'])} relative to {n['log_z_relative_to']}, without the action's constant and with "
    "det D of D = 1 - kappa H.",
    *_steps(n),
    *_known(n),
    *_joint(n),
    _bins(n),
    f"Independence Metropolis over the same samples accepts {n['acceptance_metropolis']:.3f}.",
    *(f"**Warning:** {text}." for text in _warnings(n)),
  ]
  return "\n\n".join(lines) + "\n"


def _warnings(n: Mapping[str, Any]) -> list[str]:
  of_weights = [
    f"{text}: more samples (sampling.num_samples) or a better flow (training.num_steps) help"
    for text in n["weight_warnings"]
  ]
  return [*of_weights, *n["hmc_warnings"], *n["error_warnings"], *n["metropolis_warnings"]]


def _steps(n: Mapping[str, Any]) -> list[str]:
  if n["flow_step_shift"] is None:
    return []
  return [
    f"With twice the steps the flow's ln Z would change by {-n['flow_step_shift']:+.1e}, and ln w would move by "
    f"{n['flow_step_deviation']:.1e} between samples: what the integrator's step does to either."
  ]


def _bins(n: Mapping[str, Any]) -> str:
  if not n["chi2_num_bins"]:
    return (
      "No bins of figure 2 can be compared: each needs ten effective samples of the flow and ten independent "
      "configurations of HMC, and there is no figure 3. Raise sampling.num_samples or hmc.trajectories, or lower "
      "measurement.bins."
    )
  return (
    f"All {n['chi2_num_bins']} bins of figure 2 together have chi^2 = {n['chi2_residuals']:.1f} "
    f"(p = {n['chi2_p_value']:.2g})."
  )


def _joint(n: Mapping[str, Any]) -> list[str]:
  if "ess_joint" not in n:
    return []
  return [
    f"With the joint model, {n['num_pf_draws']} pseudofermion draws for each configuration in the place of the exact "
    f"determinant, the effective sample size is **{number(n['ess_joint'], n['ess_joint_err'])}**, and "
    f"{n['ess_joint_by_draws']['1']:.4f} with one draw. Its weights are those of all that follows. The mean of the "
    f"estimated over the exact determinant has the logarithm "
    f"{number(n['log_mean_determinant_ratio'], n['log_mean_determinant_ratio_err'])}, zero without bias."
  ]


def _known(n: Mapping[str, Any]) -> list[str]:
  if "log_z_exact" not in n:
    return []
  absolute = f", ln Z = {n['log_z_exact']:.5f}" if n["log_z_relative_to"] == "Haar" else ""
  return [f"Exact on this torus: plaquette {n['mean_plaquette_exact']:.6f}{absolute}."]


def _table(n: Mapping[str, Any]) -> str:
  lines = ["| observable | flow | HMC | difference / error |", "|---|---|---|---|"]
  for name, label in _ROWS:
    if f"{name}_flow" not in n:
      continue
    four = [n[f"{name}_{which}"] for which in ("flow", "flow_err", "hmc", "hmc_err")]
    if getattr(four[0], "ndim", 0):
      rows = [(f"{label}, t = {t}", values) for t, values in enumerate(zip(*four))]
    else:
      rows = [(label, [float(x) for x in four])]
    for text, (flow, flow_err, hmc, hmc_err) in rows:
      sigma = (flow - hmc) / (math.hypot(flow_err, hmc_err) or math.nan)
      difference = f"{sigma:+.1f}" if math.isfinite(sigma) else "no error"
      lines.append(f"| {text} | {number(flow, flow_err)} | {number(hmc, hmc_err)} | {difference} |")
  return "\n".join(lines) + "\n"


def _costs(n: Mapping[str, Any]) -> str:
  each = [n[f"cpu_seconds_per_effective_sample_{which}"] for which in ("flow", "hmc")]
  rows = [
    ("samples / trajectories", n["num_flow_samples"], n["num_hmc_trajectories"]),
    ("CPU seconds", f"{n['cpu_seconds_flow']:.0f}", f"{n['cpu_seconds_hmc']:.0f}"),
    ("CPU seconds per effective sample", *("unknown" if x is None else f"{x:.3f}" for x in each)),
  ]
  table = "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
  shown = lambda name: "unknown" if n[name] is None else number(n[name], n[f"{name}_err"])
  return (
    f"| cost | flow | HMC |\n|---|---|---|\n{table}\n\n"
    f"HMC: acceptance {n['hmc_acceptance']:.4f}, {n['num_hmc_failed']} failed trajectories, <exp(-dH)> = "
    f"{shown('hmc_exp_minus_dh')}, tau_int of the plaquette {shown('hmc_tau_int_plaquette')} trajectories "
    "(1/2 + sum rho). Flow: sampling and exact weights.\n"
  )
