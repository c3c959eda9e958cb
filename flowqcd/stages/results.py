"""What a finished run has stored, and the observables of flow and HMC side by side."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flowqcd.analysis import histograms, statistics, weights
from flowqcd.io import ensembles, metrics
from flowqcd.stages import chains, costs, draws, health
from flowqcd.stages.costs import Cost


class Data(NamedTuple):
  """What a run has stored.

  log_w: [N], those that observables are reweighted with: of the joint model where there is one. log_w_exact: [N], of the
  marginal model with the exact determinant, and flow_log_det that [N]. log_draws: of the joint model [N, draws], or None.
  flow: {name: [N, ...]}; hmc: {name: [streams, n, ...]} of stored configurations; trajectories: {name: [streams, all
  trajectories]}; costs: {stage: what it cost}; haar: of haar.json, and steps: of flow_steps.json, or None.
  """

  log_w: np.ndarray
  log_w_exact: np.ndarray
  log_draws: np.ndarray | None
  flow_log_det: np.ndarray
  flow: dict[str, np.ndarray]
  hmc: dict[str, np.ndarray]
  trajectories: dict[str, np.ndarray]
  costs: dict[str, Cost]
  haar: dict[str, float] | None
  steps: dict[str, float] | None


def load(folder: pathlib.Path) -> Data:
  """Read a finished run. Raises EnsembleError where a part of it is missing."""
  flow, hmc = (ensembles.Ensemble.open(folder / name) for name in ("flow", "hmc"))
  flow_measured, hmc_measured = (ensembles.Ensemble.open(folder / f"{name}-measured") for name in ("flow", "hmc"))
  for source, measured in ((flow, flow_measured), (hmc, hmc_measured)):
    if source.num_parts != measured.num_parts:
      raise ensembles.EnsembleError(
        f"{measured.path} covers {measured.num_parts} of {source.num_parts} parts; run `flowqcd measure`"
      )
  records = [folder / name for name in ("haar.json", "flow_steps.json")]
  log_w = flow.read("log_w")
  joint = draws.read(flow) if "log_w_joint" in flow.names else None
  return Data(
    joint.log_w if joint else log_w,
    log_w,
    joint.log_draws if joint else None,
    flow.read("log_det"),
    {name: flow_measured.read(name) for name in flow_measured.names},
    {name: chains.series(hmc_measured, name) for name in hmc_measured.names},
    {name: chains.steps(hmc, name) for name in ("accepted", "delta_h", "plaquette")},
    {"flow": costs.total(costs.of(flow), *draws.cost(flow)), "hmc": costs.of(hmc)},
    *(metrics.read_json(record) if record.exists() else None for record in records),
  )


class Pair(NamedTuple):
  """The same observable from both ensembles, and why one of them has no error: a line for each."""

  flow: statistics.Estimate
  hmc: statistics.Estimate
  troubles: tuple[str, ...] = ()


def pairs(data: Data, num_planes: int) -> dict[str, Pair]:
  """Expectation values by name: plaquette (eq. 2), mean_plaquette, polyakov (real part), pion [T], q2, energy.

  The plaquette of HMC is averaged over all trajectories, the rest over stored configurations; errors are jackknife
  for the flow and the Gamma method for HMC, and NaN where these give none. num_planes: of the lattice.
  """
  plaquette = health.chain_mean(data.trajectories["plaquette"])
  scaled = plaquette._replace(estimate=_scaled(plaquette.estimate, num_planes))
  found = {
    "plaquette": _pair(data, data.flow["plaquette"], scaled),
    "mean_plaquette": _pair(data, data.flow["mean_plaquette"], plaquette),
  }
  for name in ("polyakov", "energy"):
    found[name] = _pair(data, np.real(data.flow[name]), health.chain_mean(np.real(data.hmc[name])))
  if "charge" in data.flow:
    found["q2"] = _pair(data, data.flow["charge"] ** 2, health.chain_mean(data.hmc["charge"] ** 2))
  if "pion" in data.flow:
    slices = [health.chain_mean(series) for series in np.moveaxis(data.hmc["pion"], -1, 0)]
    together = statistics.Estimate(*(np.array(parts) for parts in zip(*(found.estimate for found in slices))))
    found["pion"] = _pair(data, data.flow["pion"], health.Found(together, slices[0].trouble))
  return found


def _pair(data: Data, flow: np.ndarray, hmc: health.Found) -> Pair:
  ours = health.reweighted_mean(data.log_w, flow)
  troubles = {"flow": ours.trouble, "HMC": hmc.trouble}
  return Pair(ours.estimate, hmc.estimate, tuple(f"{name}: {text}" for name, text in troubles.items() if text))


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
  every = _independent_every([hmc for _, _, hmc in series])
  return [histograms.Panel(label, flow, statistics.thin(hmc, every).ravel()) for label, flow, hmc in series]


def _independent_every(series: Sequence[np.ndarray]) -> int:
  """Of those that have a tau_int: of frozen and short ones nothing is known."""
  return statistics.independent_every([x for x in series if health.gamma_method(x)])


class DrawCurve(NamedTuple):
  """ESS of the joint model against the number of draws a configuration."""

  draws: list[int]
  ess: list[float]


def draw_curve(data: Data) -> DrawCurve:
  """For 1, 2, 4, ... draws up to all; the mean over the disjoint groups that the stored draws make.

  Raises ValueError for a run without draws.
  """
  if data.log_draws is None:
    raise ValueError("a run without a model of pseudofermions has no draws")
  marginal = data.log_w_exact - data.flow_log_det
  total = data.log_draws.shape[1]
  draws = [*(2**i for i in range((total - 1).bit_length())), total]
  values = []
  for n in draws:
    groups = data.log_draws[:, : total // n * n].reshape(len(data.log_draws), -1, n)
    log_mean = weights.log_mean_weight(groups)
    values.append(float(weights.ess((marginal[:, None] + log_mean).T).mean()))
  return DrawCurve(draws, values)
