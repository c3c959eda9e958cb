"""What a comparison of chains has found, as text and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowqcd.analysis import statistics
from flowqcd.io import ensembles
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chains, report
from flowqcd.stages.sweeps import Sweeps

NAMES = {"hmc": "HMC", "heatbath": "heat bath", "link_flow": "link flow"}

Stores = tuple[ensembles.Ensemble, ensembles.Ensemble]
"""A chain, and the observables of its stored configurations."""

_LABELS = {"plaquette": "plaquette", "q": "charge Q", "q2": "Q^2"}


def markdown(
  theory: Theory, plan: HMC, sweeps: Sweeps, flow_time: float, numbers: Mapping[str, Mapping[str, Any]]
) -> str:
  """The report of chains.json."""
  lattice = "x".join(map(str, theory.lattice))
  charge = (
    f" The charge is at flow time {flow_time}, every {plan.thin} steps; where it is independent "
    "by then, limits are given."
    if any("q2" in key for chain in numbers.values() for key in chain)
    else ""
  )
  lines = [
    f"# Markov chains: SU(3), {lattice}, beta = {theory.beta}\n",
    f"HMC: tau = {plan.tau} in {plan.steps} steps of {plan.integrator}. Heat bath: a sweep and "
    f"{sweeps.overrelaxation} microcanonical. Link flow: a sweep of fresh links, {sweeps.reflections} of reflected ones "
    f"and {sweeps.overrelaxation} microcanonical. {plan.streams} streams of {plan.trajectories} steps each."
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
  return "\n".join([*lines, "", *warnings, *(["![Autocorrelations](chains.png)", ""] if any_healthy(numbers) else [])])


def any_healthy(numbers: Mapping[str, Mapping[str, Any]]) -> bool:
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


def figure(filled: Mapping[str, Stores], numbers: Mapping[str, Mapping[str, Any]]) -> Any:
  """Autocorrelations of the plaquette, and of Q^2, against what the steps between cost; without streams in trouble."""
  from flowqcd.analysis import figures  # matplotlib is slow to import, and only needed here

  panels: dict[str, list] = {"plaquette": [], r"$Q^2$": []}
  for name in ("link_flow", "hmc", "heatbath"):  # In the colours that flow and HMC have in other figures.
    chain = numbers[name]
    store, measured = filled[name]
    series = {"plaquette": (chains.steps(store, "plaquette"), 1)} if "plaquette" in chain else {}
    if "q2" in chain:
      series[r"$Q^2$"] = chains.series(measured, "charge") ** 2, store.config["hmc.thin"]
    for label, (x, every) in series.items():
      rho = statistics.autocorrelation(x)
      panels[label].append((NAMES[name], chain["milliseconds"] * every * np.arange(len(rho)), rho))
  return figures.autocorrelations({label: curves for label, curves in panels.items() if curves})
