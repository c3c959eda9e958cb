"""Markov chains of pure gauge theory against each other: `python -m experiments.compare_chains --preset=su3_4d`."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flowqcd.analysis import figures, statistics, trust
from flowqcd.io import ensembles, files, metrics
from flowqcd.mcmc import heatbath, link_flow
from flowqcd.runs import environment, settings
from flowqcd.stages import chains, measure, report, run_hmc

NAMES = {"hmc": "HMC", "heatbath": "heat bath", "link_flow": "link flow"}


def run(config: settings.Experiment) -> dict[str, Any]:
  """HMC, heat bath and the link flow, each as hmc.streams streams, with what an independent value costs of each.

  Fills an ensemble for each and one for what is measured on it, and writes chains.json, chains.md and chains.png. The
  content of chains.json is returned, by chain: steps of all streams, acceptance, CPU milliseconds of a step, without what
  compiling takes and without measuring; for the plaquette, and where there is a charge for Q and Q^2, mean, tau_int in
  steps, the CPU milliseconds of an independent value, those of a step times 2 tau_int, their ratio to HMC's, errors
  (_err) of all these, and _warnings where errors may be too small. Charges are measured every hmc.thin steps: where they
  are independent already, `_limit` is true, and tau_int and cost are upper limits. Where streams are frozen or disagree,
  `_trouble` says so in the place of numbers. Chains that the folder holds already keep the times that they took. Raises
  ValueError, before anything runs, for quarks, groups other than SU(3), odd extents, and less than 24 stored
  configurations a stream.
  """
  _check(config)
  environment.start(config)
  folder = environment.claim(config)
  found = {name: _chain(config, *stores) for name, stores in _filled(config, folder).items()}
  numbers = {name: chain | _relative(chain, found["hmc"]) for name, chain in found.items()}
  metrics.write_json(folder / "chains.json", numbers)
  if _any_healthy(numbers):
    with files.atomic(folder / "chains.png", overwrite=True) as handle:
      _figure(folder, numbers).savefig(handle, format="png")
  text = markdown(config, numbers)
  with files.atomic(folder / "chains.md", overwrite=True) as handle:
    handle.write(text.encode())
  environment.say(f"{folder / 'chains.md'}:\n{text}")
  return numbers


_LEAST_STORED = 24
"""Three parts of eight, of which the first may compile."""


def _check(config: settings.Experiment) -> None:
  theory, stored = config.theory, config.hmc.trajectories // config.hmc.thin
  if theory.num_flavours or theory.nc != 3:
    raise ValueError("chains are compared for SU(3) without quarks: set theory.num_flavours = 0 and theory.nc = 3")
  if any(n % 2 for n in theory.lattice):
    raise ValueError(f"heat bath and link flow need even extents, not {theory.lattice}")
  if stored < _LEAST_STORED:
    raise ValueError(
      f"hmc.trajectories = {config.hmc.trajectories} and hmc.thin = {config.hmc.thin} leave {stored} configurations a "
      f"stream; at least {_LEAST_STORED} are needed"
    )


Stores = tuple[ensembles.Ensemble, ensembles.Ensemble]
"""A chain, and the observables of its stored configurations."""


def _filled(config: settings.Experiment, folder: pathlib.Path) -> dict[str, Stores]:
  beta, plan = config.theory.beta, config.sweeps
  sweep = heatbath.make(beta, plan.overrelaxation)
  flow = link_flow.make(beta, plan.reflections, plan.overrelaxation)
  stores = {
    "hmc": run_hmc.fill(config),
    "heatbath": chains.fill(config, "heatbath", sweep, lambda info: {}, salt=14),
    "link_flow": chains.fill(config, "link_flow", flow, lambda info: {"accepted": info.probability}, salt=16),
  }
  return {name: (s, measure.ensemble(config, s, folder / f"{name}-measured")) for name, s in stores.items()}


def _chain(config: settings.Experiment, store: ensembles.Ensemble, measured: ensembles.Ensemble) -> dict[str, Any]:
  """Numbers of one chain."""
  plaquette, seconds = chains.steps(store, "plaquette"), store.attributes("cpu_seconds")
  # The first part may have compiled. Streams that fill up the devices cost time as well, and are not kept.
  devices, streams = jax.local_device_count(), config.hmc.streams
  run_for_each = -(-streams // devices) * devices / streams
  milliseconds = 1e3 * float(np.median(seconds[1:])) * len(seconds) / (plaquette.size * run_for_each)
  acceptance = float(chains.steps(store, "accepted").mean()) if "accepted" in store.names else 1.0
  numbers = {"steps": plaquette.size, "acceptance": acceptance, "milliseconds": milliseconds}
  numbers |= estimate("plaquette", plaquette, 1, milliseconds)
  if "charge" in measured.names:
    charge = chains.series(measured, "charge")
    numbers |= estimate("q", charge, config.hmc.thin, milliseconds)
    numbers |= estimate("q2", charge**2, config.hmc.thin, milliseconds)
  return numbers


_RESOLVED = 0.6
"""tau_int in units of the distance between measurements, below which these are independent as far as one can tell."""


def estimate(name: str, series: np.ndarray, every: int, milliseconds: float) -> dict[str, Any]:
  """Mean, tau_int and cost of a series [streams, n] that is measured every so many steps; keys begin with the name."""
  try:
    mean, result = statistics.chain_mean(series), statistics.gamma_method(series)
  except statistics.ChainError as error:
    return {f"{name}_trouble": str(error)}
  tau, tau_error = every * result.tau_int, every * result.tau_int_error
  return {
    name: float(mean.value),
    f"{name}_err": float(mean.error),
    f"{name}_tau_int": tau,
    f"{name}_tau_int_err": tau_error,
    f"{name}_cost": 2 * tau * milliseconds,
    f"{name}_cost_err": 2 * tau_error * milliseconds,
    f"{name}_limit": bool(every > 1 and result.tau_int < _RESOLVED),
    f"{name}_warnings": list(trust.of_chain(series.shape, result.tau_int)),
  }


def _relative(chain: Mapping[str, Any], hmc: Mapping[str, Any]) -> dict[str, Any]:
  """Costs as fractions of HMC's, with errors of both tau_int; HMC's own is one. None where HMC's is not known."""
  numbers = {}
  for name in [key.removesuffix("_cost") for key in chain if key.endswith("_cost")]:
    if f"{name}_cost" not in hmc or hmc[f"{name}_limit"]:
      continue
    ratio = chain[f"{name}_cost"] / hmc[f"{name}_cost"]
    errors = [x[f"{name}_cost_err"] / x[f"{name}_cost"] for x in (chain, hmc)]
    numbers |= {f"{name}_cost_ratio": ratio, f"{name}_cost_ratio_err": ratio * math.hypot(*errors) * (chain is not hmc)}
  return numbers


_LABELS = {"plaquette": "plaquette", "q": "charge Q", "q2": "Q^2"}


def markdown(config: settings.Experiment, numbers: Mapping[str, Mapping[str, Any]]) -> str:
  """The report of chains.json."""
  theory, plan = config.theory, config.sweeps
  lattice = "x".join(map(str, theory.lattice))
  charge = (
    f" The charge is at flow time {config.measurement.flow_time}, every {config.hmc.thin} steps; where it is independent "
    "by then, limits are given."
    if any("q2" in key for chain in numbers.values() for key in chain)
    else ""
  )
  lines = [
    f"# Markov chains: SU(3), {lattice}, beta = {theory.beta}\n",
    f"HMC: tau = {config.hmc.tau} in {config.hmc.steps} steps of {config.hmc.integrator}. Heat bath: a sweep and "
    f"{plan.overrelaxation} microcanonical. Link flow: a sweep of fresh links, {plan.reflections} of reflected ones "
    f"and {plan.overrelaxation} microcanonical. {config.hmc.streams} streams of {config.hmc.trajectories} steps each."
    f"{charge}\n",
    "| chain | acceptance | CPU ms a step | observable | mean | tau_int, steps | CPU ms an independent value | of HMC's |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name, chain in numbers.items():
    first = [NAMES[name], f"{chain['acceptance']:.3f}", f"{chain['milliseconds']:.2f}"]
    for observable, label in _LABELS.items():
      if observable in chain or f"{observable}_trouble" in chain:
        lines.append(f"| {' | '.join([*first, label, *_cells(chain, observable)])} |")
        first = ["", "", ""]
  warnings = [
    f"**Warning:** {NAMES[name]}, {label}: {text}.\n"
    for name, chain in numbers.items()
    for observable, label in _LABELS.items()
    for text in chain.get(f"{observable}_warnings", ())
  ]
  return "\n".join([*lines, "", *warnings, *(["![Autocorrelations](chains.png)", ""] if _any_healthy(numbers) else [])])


def _any_healthy(numbers: Mapping[str, Mapping[str, Any]]) -> bool:
  """Whether there is an autocorrelation to draw."""
  return any(name in chain for chain in numbers.values() for name in ("plaquette", "q2"))


def _cells(chain: Mapping[str, Any], name: str) -> list[str]:
  """Mean, tau_int, cost and ratio as text."""
  if f"{name}_trouble" in chain:
    return [chain[f"{name}_trouble"], "", "", ""]
  shown = lambda key: report.number(chain[key], chain[f"{key}_err"]) if key in chain else "unknown"
  at_most = "at most " if chain[f"{name}_limit"] else ""
  ratio = shown(f"{name}_cost_ratio")
  return [
    shown(name),
    at_most + shown(f"{name}_tau_int"),
    at_most + shown(f"{name}_cost"),
    at_most * (ratio != "unknown") + ratio,
  ]


def _figure(folder: pathlib.Path, numbers: Mapping[str, Mapping[str, Any]]):
  """Autocorrelations of the plaquette, and of Q^2, against what the steps between cost; without streams in trouble."""
  panels: dict[str, list] = {"plaquette": [], r"$Q^2$": []}
  for name in ("link_flow", "hmc", "heatbath"):  # In the colours that flow and HMC have in other figures.
    chain = numbers[name]
    store, measured = (ensembles.Ensemble.open(folder / path) for path in (name, f"{name}-measured"))
    series = {"plaquette": (chains.steps(store, "plaquette"), 1)} if "plaquette" in chain else {}
    if "q2" in chain:
      series[r"$Q^2$"] = chains.series(measured, "charge") ** 2, store.config["hmc.thin"]
    for label, (x, every) in series.items():
      rho = statistics.autocorrelation(x)
      panels[label].append((NAMES[name], chain["milliseconds"] * every * np.arange(len(rho)), rho))
  return figures.autocorrelations({label: curves for label, curves in panels.items() if curves})
