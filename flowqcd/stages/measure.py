"""Observables of stored configurations."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import jax
import numpy as np

from flowqcd import distributed, hosts
from flowqcd.io import ensembles
from flowqcd.runs.folder import Run
from flowqcd.runs.progress import Progress
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field
from flowqcd.theory import observables, wilson_flow
from flowqcd.types import Array

_NUM_CHECKED = 8
"""Configurations on which the adaptive Wilson flow is compared with a fixed small step."""


@dataclasses.dataclass(frozen=True)
class Measurement:
  """Observables of stored configurations."""

  flow_time: float = field(4.0, "Wilson flow time t/a^2 of the topological charge.")
  tolerance: float = field(1e-3, "Local error of the adaptive flow.")
  chunk: int = field(4, "Configurations vectorised at once on a device.")
  bins: int = field(24, "Bins of the histograms.")
  extents: tuple[int, ...] = field(
    (), "Extents t,x,y,z that measured files must have; needed for LIME files of bare data. Of no effect on runs."
  )

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot measure."""
    if self.flow_time < 0 or self.tolerance <= 0 or self.chunk < 1 or self.bins < 2:
      raise ValueError("measurement needs flow_time >= 0, tolerance > 0, chunk >= 1, bins >= 2")


def observables_of(theory: Theory, plan: Measurement, u: Array) -> dict[str, Array]:
  """All observables of one configuration [Nd, Nc, Nc, *L], by name; what the theory does not have is left out."""
  nd = len(theory.lattice)
  values = {
    "plaquette": observables.plaquette(u),
    "mean_plaquette": observables.mean_plaquette(u),
    "polyakov": observables.polyakov_loop(u),
  }
  if theory.num_flavours:
    values["pion"] = observables.pion_correlator(u, theory.kappa, theory.boundary, twisted_mass=theory.twisted_mass)
  # Single precision: rounding is far below the local error that the steps are allowed.
  flowed = wilson_flow.adaptive(u.astype("complex64"), plan.flow_time, plan.tolerance)
  values["energy"] = observables.energy_density(flowed.u)
  values["flow_steps"] = flowed.steps
  if nd == 4 or (nd == 2 and theory.nc == 1):
    values["charge"] = observables.topological_charge(flowed.u)
  return values


def require_finite(values: Mapping[str, np.ndarray], where: str) -> None:
  """Raise ValueError naming the observables that are not finite."""
  bad = [name for name, x in values.items() if not np.isfinite(x).all()]
  if bad:
    raise ValueError(f"{where}: {', '.join(bad)} not finite (a solver or the flow stopped)")


def fill(run: Run, theory: Theory, source: ensembles.Ensemble, plan: Measurement) -> ensembles.Ensemble:
  """Fill `<source>-measured` with the observables of the stored configurations of `source`, part by part, from where it
  stands."""
  store = run.store(f"{source.path.name}-measured")
  mapped = distributed.parallel_map(lambda u: observables_of(theory, plan, u), plan.chunk)
  total, label = source.num_parts, f"measuring {source.path.name}"
  progress = Progress(f"{label} (parts)", total, store.num_parts)
  for part in range(store.num_parts, total):
    clock = time.process_time()
    values = jax.device_get(mapped(source.read_part(part, "u")))
    require_finite(values, f"{label}, part {part}")
    store.append(values, {"cpu_seconds": hosts.summed(time.process_time() - clock)})
    progress.update(part + 1)
  return store


def check_wilson_flow(run: Run, source: ensembles.Ensemble, found: ensembles.Ensemble, plan: Measurement) -> None:
  """Compare charge and energy of the first configurations with a flow at step 0.01; kept in wilson_flow.json.

  Raises ValueError if charges depend on the adaptive step by more than 0.01.
  """
  if run.record("wilson_flow.json") is not None:
    return
  u = source.read_part(0, "u")[:_NUM_CHECKED]
  measures = {"charge": observables.topological_charge, "energy": observables.energy_density}
  measures = {name: measure for name, measure in measures.items() if name in found.names}

  def fixed(u: Array) -> dict[str, Array]:
    flowed = wilson_flow.flow(u, plan.flow_time, 0.01)
    return {name: measure(flowed) for name, measure in measures.items()}

  mapped = distributed.parallel_map(fixed, plan.chunk)
  error = {name: float(np.abs(x - found.read_part(0, name)[: len(u)]).max()) for name, x in mapped(u).items()}
  if error.get("charge", 0.0) > 0.01:
    raise ValueError(
      f"the charge moves by {error['charge']:.2g} against a flow step of 0.01; lower measurement.tolerance"
    )
  run.write("wilson_flow.json", {"num_configurations": len(u), "max_deviation": error})
