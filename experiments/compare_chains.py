"""Markov chains of pure gauge theory against each other: `python -m experiments.compare_chains --preset=su3_4d`."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import chains, configuration, environment, measure, presets, report, run_hmc, settings, summary
from flowqcd.analysis import figures, statistics
from flowqcd.io import ensembles, files, metrics
from flowqcd.mcmc import heatbath, link_flow

NAMES = {"hmc": "HMC", "heatbath": "heat bath", "link_flow": "link flow"}


def run(config: settings.Experiment) -> dict[str, Any]:
  """HMC, heat bath and the link flow, each as hmc.streams streams, with what an independent value costs of each.

  Fills an ensemble for each and one for what is measured on it, and writes chains.json, chains.md and chains.png. The
  content of chains.json is returned: for each chain, the CPU milliseconds of a step; for the plaquette, and where there is
  a charge for Q and Q^2, mean, error, tau_int in steps, and the CPU milliseconds of an independent value, those of a step
  times 2 tau_int. Without what compiling takes, and without measuring. Raises ValueError for theories with quarks and
  groups other than SU(3), for chains that do not move or disagree with each other's streams.
  """
  if config.theory.num_flavours or config.theory.nc != 3:
    raise ValueError("chains are compared for SU(3) without quarks: set theory.num_flavours = 0 and theory.nc = 3")
  environment.start(config)
  folder = environment.claim(config)
  found = {name: _chain(store, measured) for name, (store, measured) in _filled(config, folder).items()}
  numbers = {name: chain | _relative(chain, found["hmc"]) for name, chain in found.items()}
  metrics.write_json(folder / "chains.json", numbers)
  with files.atomic(folder / "chains.png", overwrite=True) as handle:
    _figure(folder, numbers).savefig(handle, format="png")
  text = markdown(config, numbers)
  with files.atomic(folder / "chains.md", overwrite=True) as handle:
    handle.write(text.encode())
  environment.say(f"{folder / 'chains.md'}:\n{text}")
  return numbers


Stores = tuple[ensembles.Ensemble, ensembles.Ensemble]
"""A chain, and the observables of its stored configurations."""


def _filled(config: settings.Experiment, folder: pathlib.Path) -> dict[str, Stores]:
  beta, plan = config.theory.beta, config.sweeps
  sweep = heatbath.make(beta, plan.overrelaxation)
  flow = link_flow.make(beta, plan.reflections, plan.overrelaxation)
  stores = {
    "hmc": run_hmc.run(config),
    "heatbath": chains.fill(config, "heatbath", sweep, lambda info: {}, salt=14),
    "link_flow": chains.fill(config, "link_flow", flow, lambda info: {"accepted": info.probability}, salt=16),
  }
  return {name: (s, measure.ensemble(config, s, folder / f"{name}-measured")) for name, s in stores.items()}


def _chain(store: ensembles.Ensemble, measured: ensembles.Ensemble) -> dict[str, Any]:
  """Numbers of one chain. Raises InconsistentStreamsError, as HMC does, where streams disagree."""
  plaquette = chains.steps(store, "plaquette")
  milliseconds = 1e3 * summary.steady(store.attributes("cpu_seconds")) / plaquette.size
  acceptance = float(chains.steps(store, "accepted").mean()) if "accepted" in store.names else 1.0
  numbers = {"steps": plaquette.size, "acceptance": acceptance, "milliseconds": milliseconds}
  observables = {"plaquette": (plaquette, 1)}
  if "charge" in measured.names:
    charge, every = chains.series(measured, "charge"), store.config["hmc.thin"]
    observables |= {"q": (charge, every), "q2": (charge**2, every)}
  for name, (series, every) in observables.items():
    result = statistics.gamma_method(series)
    tau, tau_error = every * result.tau_int, every * result.tau_int_error
    numbers[name] = float(statistics.chain_mean(series).value)
    numbers |= {f"{name}_err": result.error, f"{name}_tau_int": tau, f"{name}_tau_int_err": tau_error}
    numbers |= {f"{name}_cost": 2 * tau * milliseconds, f"{name}_cost_err": 2 * tau_error * milliseconds}
  return numbers


def _relative(chain: Mapping[str, Any], hmc: Mapping[str, Any]) -> dict[str, Any]:
  """Costs as fractions of HMC's, with errors of both tau_int; HMC's own is one."""
  numbers = {}
  for name in [key.removesuffix("_cost") for key in chain if key.endswith("_cost")]:
    ratio = chain[f"{name}_cost"] / hmc[f"{name}_cost"]
    errors = [x[f"{name}_cost_err"] / x[f"{name}_cost"] for x in (chain, hmc)]
    numbers |= {f"{name}_cost_ratio": ratio, f"{name}_cost_ratio_err": ratio * math.hypot(*errors) * (chain is not hmc)}
  return numbers


_LABELS = {"plaquette": "plaquette", "q": "charge Q", "q2": "Q^2"}


def markdown(config: settings.Experiment, numbers: Mapping[str, Mapping[str, Any]]) -> str:
  """The report of chains.json."""
  theory, plan = config.theory, config.sweeps
  lattice, value = "x".join(map(str, theory.lattice)), report.number
  lines = [
    f"# Markov chains: SU(3), {lattice}, beta = {theory.beta}\n",
    f"HMC: tau = {config.hmc.tau} in {config.hmc.steps} steps of {config.hmc.integrator}. Heat bath: a sweep and "
    f"{plan.overrelaxation} microcanonical ones. Link flow: a sweep of fresh links, {plan.reflections} of reflected ones "
    f"and {plan.overrelaxation} microcanonical ones. {config.hmc.streams} streams of {config.hmc.trajectories} steps each; "
    f"the charge is at flow time {config.measurement.flow_time}, every {config.hmc.thin} steps.\n",
    "| chain | acceptance | CPU ms a step | observable | mean | tau_int, steps | CPU ms an independent value | of HMC's |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name, chain in numbers.items():
    first = [NAMES[name], f"{chain['acceptance']:.3f}", f"{chain['milliseconds']:.2f}"]
    for observable, label in _LABELS.items():
      if observable not in chain:
        continue
      keys = [observable + key for key in ("", "_tau_int", "_cost", "_cost_ratio")]
      row = [*first, label, *(value(chain[key], chain[f"{key}_err"]) for key in keys)]
      lines.append(f"| {' | '.join(row)} |")
      first = ["", "", ""]
  return "\n".join([*lines, "", "![Autocorrelations](chains.png)", ""])


def _figure(folder: pathlib.Path, numbers: Mapping[str, Mapping[str, Any]]):
  """Autocorrelations of the plaquette, and of Q^2, against what the steps between cost."""
  panels = {"plaquette": [], r"$Q^2$": []}
  for name in ("link_flow", "hmc", "heatbath"):  # In the colours that flow and HMC have in other figures.
    chain = numbers[name]
    store, measured = (ensembles.Ensemble.open(folder / path) for path in (name, f"{name}-measured"))
    series = {"plaquette": (chains.steps(store, "plaquette"), 1)}
    if "charge" in measured.names:
      series[r"$Q^2$"] = chains.series(measured, "charge") ** 2, store.config["hmc.thin"]
    for label, (x, every) in series.items():
      rho = statistics.autocorrelation(x)
      panels[label].append((NAMES[name], chain["milliseconds"] * every * np.arange(len(rho)), rho))
  return figures.autocorrelations({label: curves for label, curves in panels.items() if curves})


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "su3_4d")


if __name__ == "__main__":
  main()
