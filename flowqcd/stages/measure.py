"""Measure the observables of both ensembles: `python -m experiments.measure --preset=...`."""

from __future__ import annotations

import pathlib
import time

import jax
import numpy as np

from flowqcd import distributed
from flowqcd.io import ensembles, metrics
from flowqcd.runs import environment, settings
from flowqcd.stages import run_hmc, sample
from flowqcd.theory import observables, wilson_flow
from flowqcd.types import Array

_NUM_CHECKED = 8
"""Configurations on which the adaptive Wilson flow is compared with a fixed small step."""


def run(config: settings.Experiment) -> tuple[ensembles.Ensemble, ensembles.Ensemble]:
  """Fill `flow-measured` and `hmc-measured`, part by part beside the ensembles, from where they stand.

  Raises ValueError if the flow's charges depend on the adaptive step by more than 0.01.
  """
  environment.start(config)
  folder = environment.claim(config)
  measured = tuple(
    ensemble(config, source, folder / f"{name}-measured")
    for name, source in (("flow", sample.run(config)), ("hmc", run_hmc.run(config)))
  )
  _check_wilson_flow(config, folder)
  return measured


def observables_of(config: settings.Experiment, u: Array) -> dict[str, Array]:
  """All observables of one configuration [Nd, Nc, Nc, *L], by name; what the theory does not have is left out."""
  theory, nd = config.theory, len(config.theory.lattice)
  values = {
    "plaquette": observables.plaquette(u),
    "mean_plaquette": observables.mean_plaquette(u),
    "polyakov": observables.polyakov_loop(u),
  }
  if theory.num_flavours:
    values["pion"] = observables.pion_correlator(u, theory.kappa, theory.boundary)
  # Single precision: rounding is far below the local error that the steps are allowed.
  flowed = wilson_flow.adaptive(u.astype("complex64"), config.measurement.flow_time, config.measurement.tolerance)
  values["energy"] = observables.energy_density(flowed.u)
  values["flow_steps"] = flowed.steps
  if nd == 4 or (nd == 2 and theory.nc == 1):
    values["charge"] = observables.topological_charge(flowed.u)
  return values


def ensemble(config: settings.Experiment, source: ensembles.Ensemble, path: pathlib.Path) -> ensembles.Ensemble:
  """Fill `path` with the observables of the stored configurations of `source`, part by part, from where it stands."""
  store = environment.store(config, path)
  mapped = distributed.parallel_map(lambda u: observables_of(config, u), config.measurement.chunk)
  total, label = source.num_parts, f"measuring {source.path.name}"
  progress = environment.Progress(f"{label} (parts)", total, store.num_parts)
  for part in range(store.num_parts, total):
    clock = time.process_time()
    values = jax.device_get(mapped(source.read_part(part, "u")))
    bad = [name for name, x in values.items() if not np.isfinite(x).all()]
    if bad:
      raise ValueError(f"{label}, part {part}: {', '.join(bad)} not finite (a solver or the flow stopped)")
    store.append(values, {"cpu_seconds": time.process_time() - clock})
    progress.update(part + 1)
  return store


def _check_wilson_flow(config: settings.Experiment, folder: pathlib.Path) -> None:
  """Compare charge and energy of the first configurations with a flow at step 0.01; kept in wilson_flow.json."""
  record = folder / "wilson_flow.json"
  if record.exists():
    return
  store = ensembles.Ensemble.open(folder / "flow")
  found = ensembles.Ensemble.open(folder / "flow-measured")
  u = store.read_part(0, "u")[:_NUM_CHECKED]
  measures = {"charge": observables.topological_charge, "energy": observables.energy_density}
  measures = {name: measure for name, measure in measures.items() if name in found.names}

  def fixed(u: Array) -> dict[str, Array]:
    flowed = wilson_flow.flow(u, config.measurement.flow_time, 0.01)
    return {name: measure(flowed) for name, measure in measures.items()}

  mapped = distributed.parallel_map(fixed, config.measurement.chunk)
  error = {name: float(np.abs(x - found.read_part(0, name)[: len(u)]).max()) for name, x in mapped(u).items()}
  if error.get("charge", 0.0) > 0.01:
    raise ValueError(
      f"the charge moves by {error['charge']:.2g} against a flow step of 0.01; lower measurement.tolerance"
    )
  metrics.write_json(record, {"num_configurations": len(u), "max_deviation": error})
