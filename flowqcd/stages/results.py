"""What a finished run has stored, and the observables of flow and HMC side by side."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

from flowqcd.analysis import histograms, statistics, weights
from flowqcd.io import ensembles, metrics
from flowqcd.stages import chains


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
        f"{measured.path} covers {measured.num_parts} of {source.num_parts} parts; run `flowqcd measure`"
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


def pairs(data: Data, num_planes: int) -> dict[str, Pair]:
  """Expectation values by name: plaquette (eq. 2), mean_plaquette, polyakov (real part), pion [T], q2, energy.

  The plaquette of HMC is averaged over all trajectories, the rest over stored configurations; errors are jackknife
  for the flow and the Gamma method for HMC. num_planes: of the lattice.
  """
  reweighted = lambda x: weights.reweighted_mean_jackknife(data.log_w, x)
  plaquette = statistics.chain_mean(data.trajectories["plaquette"])
  found = {
    "plaquette": Pair(reweighted(data.flow["plaquette"]), _scaled(plaquette, num_planes)),
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
