"""Hybrid Monte Carlo as a run has it."""

from __future__ import annotations

import dataclasses

from flowqcd.lattice import integrators
from flowqcd.lattice.precision import in_single
from flowqcd.mcmc import hmc
from flowqcd.runs import theories
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import choose, field
from flowqcd.theory import gauge, pseudofermion
from flowqcd.types import Action, Kernel

INTEGRATORS = {
  "leapfrog": integrators.LEAPFROG,
  "omelyan2": integrators.OMELYAN2,
  "omelyan4": integrators.OMELYAN4,
}


@dataclasses.dataclass(frozen=True)
class HMC:
  """Independent HMC streams in the paper's convention of tau."""

  streams: int = field(8, "Independent streams.")
  trajectories: int = field(1000, "Trajectories per stream after thermalisation.")
  thermalisation: int = field(200, "Trajectories discarded in each stream.")
  thin: int = field(10, "Trajectories between stored configurations.")
  tau: float = field(0.5, "Trajectory length.")
  steps: int = field(5, "Integrator steps per trajectory.")
  integrator: str = field("leapfrog", "leapfrog, omelyan2 or omelyan4.")
  hasenbusch_mass: float = field(0.0, "Mass of the Hasenbusch splitting; 0 for none.")
  single_forces: bool = field(
    True, "Forces in single precision where the rest is in double: exact, since energies and acceptance are in double."
  )

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot run."""
    if min(self.streams, self.trajectories, self.thin, self.steps) < 1 or self.thermalisation < 0:
      raise ValueError("hmc.streams, trajectories, thin and steps must be at least 1")
    if self.trajectories % self.thin:
      raise ValueError(f"hmc.trajectories = {self.trajectories} must be a multiple of hmc.thin = {self.thin}")
    if self.tau <= 0:
      raise ValueError(f"hmc.tau must be positive, not {self.tau}")
    choose(INTEGRATORS, self.integrator, "hmc.integrator")
    if self.hasenbusch_mass < 0:
      raise ValueError(f"hmc.hasenbusch_mass must not be negative, not {self.hasenbusch_mass}")


def check(run: HMC, theory: Theory) -> None:
  """Raise ValueError for a Hasenbusch splitting where quarks have a twisted mass."""
  if run.hasenbusch_mass:
    theories.require_untwisted(theory, "the Hasenbusch splitting of HMC", "set hmc.hasenbusch_mass = 0")


def kernel_of(action: Action, run: HMC) -> Kernel:
  """HMC of an action, with this length, steps and integrator."""
  return hmc.make(action, run.tau, run.steps, INTEGRATORS[run.integrator])


def kernel(theory: Theory, run: HMC, precision: str) -> Kernel:
  """HMC of a theory."""
  return kernel_of(action(theory, run, precision), run)


def action(theory: Theory, run: HMC, precision: str) -> Action:
  """The gauge action plus pseudofermions, whose determinant is that of `theories.log_det`. Raises as `check` does."""
  check(run, theory)
  parts = [theories.gauge_action(theory)]
  mixed = precision == "double" and run.single_forces
  # Errors of energies go with the square of their solver's; those of forces cost acceptance, but no exactness.
  tolerances = (1e-4 if mixed else 1e-6, 1e-5 if precision == "single" else 1e-7)
  if theory.num_flavours and run.hasenbusch_mass:
    parts += pseudofermion.hasenbusch(theory.kappa, run.hasenbusch_mass, theory.boundary, tolerances)
  elif theory.num_flavours:
    parts.append(pseudofermion.even_odd(theory.kappa, theory.boundary, 0.0, tolerances, theory.twisted_mass))
  total = gauge.total(*parts)
  return total._replace(force=in_single(total.force)) if mixed else total
