"""Markov chains of pure gauge theory against each other."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowqcd import distributed, hosts
from flowqcd.analysis import statistics, trust
from flowqcd.io import ensembles, files, metrics
from flowqcd.mcmc import heatbath, link_flow
from flowqcd.runs import progress, theories
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.stages import chain_report, chains, costs, measure, run_hmc
from flowqcd.stages.chain_report import Stores
from flowqcd.stages.measure import Measurement
from flowqcd.stages.sweeps import Sweeps


def run(run: Run, theory: Theory, plan: HMC, sweeps: Sweeps, measurement: Measurement) -> dict[str, Any]:
  """HMC, heat bath and the link flow, each in the plan's streams, with what an independent value costs of each.

  Fills an ensemble for each and one for what is measured on it, and writes chains.json, chains.md and chains.png. The
  content of chains.json is returned, by chain: steps of all streams, acceptance, CPU milliseconds of a step, without what
  compiling takes and without measuring; for the plaquette, and where there is a charge for Q and Q^2, mean, tau_int in
  steps, the CPU milliseconds of an independent value, those of a step times 2 tau_int, their ratio to HMC's, errors
  (_err) of all these, and _warnings where errors may be too small. Charges are measured every plan.thin steps: where they
  are independent already, `_limit` is true, and tau_int and cost are upper limits. Where streams are frozen or disagree,
  `_trouble` says so in the place of numbers. Chains that the folder holds already keep the times that they took. Raises
  ValueError as `check` does.
  """
  check(theory, plan)
  filled = _filled(run, theory, plan, sweeps, measurement)
  return hosts.shared(lambda: _conclude(run.folder, theory, plan, sweeps, measurement, filled))


def _conclude(
  folder: pathlib.Path, theory: Theory, plan: HMC, sweeps: Sweeps, measurement: Measurement, filled: dict[str, Stores]
) -> dict[str, Any]:
  found = {name: _chain(plan, *stores) for name, stores in filled.items()}
  numbers = {name: chain | _relative(chain, found["hmc"]) for name, chain in found.items()}
  metrics.write_json(folder / "chains.json", numbers)
  if chain_report.any_healthy(numbers):
    with files.atomic(folder / "chains.png", overwrite=True) as handle:
      chain_report.figure(filled, numbers).savefig(handle, format="png")
  text = chain_report.markdown(theory, plan, sweeps, measurement.flow_time, numbers)
  with files.atomic(folder / "chains.md", overwrite=True) as handle:
    handle.write(text.encode())
  progress.say(f"{folder / 'chains.md'}:\n{text}")
  return numbers


_LEAST_STORED = 24
"""Three parts of eight, of which the first may compile."""


def check(theory: Theory, plan: HMC) -> None:
  """Raise ValueError for quarks, groups other than SU(3), odd extents, and less than 24 stored configurations a stream."""
  stored = plan.trajectories // plan.thin
  if theory.num_flavours or theory.nc != 3:
    raise ValueError("chains are compared for SU(3) without quarks: set theory.num_flavours = 0 and theory.nc = 3")
  theories.require_plaquettes(theory, "heat bath and link flow", "there is `flowqcd run_hmc`")
  if any(n % 2 for n in theory.lattice):
    raise ValueError(f"heat bath and link flow need even extents, not {theory.lattice}")
  if stored < _LEAST_STORED:
    raise ValueError(
      f"hmc.trajectories = {plan.trajectories} and hmc.thin = {plan.thin} leave {stored} configurations a "
      f"stream; at least {_LEAST_STORED} are needed"
    )


def _filled(run: Run, theory: Theory, plan: HMC, sweeps: Sweeps, measurement: Measurement) -> dict[str, Stores]:
  sweep = heatbath.make(theory.beta, sweeps.overrelaxation)
  flow = link_flow.make(theory.beta, sweeps.reflections, sweeps.overrelaxation)
  stores = {
    "hmc": run_hmc.fill(run, theory, plan),
    "heatbath": chains.fill(run, theory, "heatbath", sweep, lambda info: {}, plan, salt=14),
    "link_flow": chains.fill(
      run, theory, "link_flow", flow, lambda info: {"accepted": info.probability}, plan, salt=16
    ),
  }
  return {name: (store, measure.fill(run, theory, store, measurement)) for name, store in stores.items()}


def _chain(plan: HMC, store: ensembles.Ensemble, measured: ensembles.Ensemble) -> dict[str, Any]:
  """Numbers of one chain."""
  plaquette = chains.steps(store, "plaquette")
  # Streams that fill up the devices cost time as well, and are not kept.
  places, streams = distributed.places(), plan.streams
  run_for_each = -(-streams // places) * places / streams
  milliseconds = 1e3 * costs.of(store).steady / (plaquette.size * run_for_each)
  acceptance = float(chains.steps(store, "accepted").mean()) if "accepted" in store.names else 1.0
  numbers = {"steps": plaquette.size, "acceptance": acceptance, "milliseconds": milliseconds}
  numbers |= estimate("plaquette", plaquette, 1, milliseconds)
  if "charge" in measured.names:
    charge = chains.series(measured, "charge")
    numbers |= estimate("q", charge, plan.thin, milliseconds)
    numbers |= estimate("q2", charge**2, plan.thin, milliseconds)
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
