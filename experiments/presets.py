"""Named configurations of the whole chain: theory, flow, training, sampling, HMC, measurement."""

from __future__ import annotations

import dataclasses

from experiments.configuration import field
from flowqcd.flows import trivializing
from flowqcd.training import optimizer


@dataclasses.dataclass(frozen=True)
class Theory:
  """The target: Wilson gauge action and num_flavours (0 or 2) of Wilson quarks."""

  nc: int = field(3, "Number of colours: 1 (U(1)), 2 or 3.")
  lattice: tuple[int, ...] = field((4, 4, 4, 4), "Extents t,x,y,z (2D: t,x).")
  beta: float = field(1.0, "Gauge coupling of S = -(beta/Nc) sum Re tr P.")
  kappa: float = field(0.1, "Hopping parameter of the quarks.")
  num_flavours: int = field(2, "Degenerate quark flavours: 0 or 2.")
  boundary: tuple[float, ...] = field((-1.0, 1.0, 1.0, 1.0), "Fermion phase per direction.")

  def __post_init__(self) -> None:
    """Raise ValueError for a theory that is not there."""
    if self.nc not in (1, 2, 3):
      raise ValueError(f"theory.nc must be 1, 2 or 3, not {self.nc}")
    if len(self.lattice) not in (2, 3, 4) or min(self.lattice) < 2:
      raise ValueError(f"theory.lattice needs 2, 3 or 4 extents of at least 2, not {self.lattice}")
    if self.num_flavours not in (0, 2):
      raise ValueError(f"theory.num_flavours must be 0 or 2, not {self.num_flavours}")
    if self.beta < 0:
      raise ValueError(f"theory.beta must not be negative, not {self.beta}")
    if self.num_flavours:
      self._check_quarks()

  def _check_quarks(self) -> None:
    if len(self.lattice) not in (2, 4):
      raise ValueError(f"quarks need 2 or 4 dimensions, not {len(self.lattice)}")
    if any(n % 2 for n in self.lattice):
      raise ValueError(f"even/odd quarks need even extents, not {self.lattice}")
    if len(self.boundary) != len(self.lattice):
      raise ValueError(f"theory.boundary needs one phase per direction, {len(self.lattice)}, not {self.boundary}")
    if self.kappa <= 0:
      raise ValueError(f"theory.kappa must be positive, not {self.kappa}")


@dataclasses.dataclass(frozen=True)
class Training:
  """Reverse-KL training of the marginal flow; none for num_steps = 0, the analytic flow."""

  num_steps: int = field(0, "Optimisation steps; 0 uses the analytic coefficients as they are.")
  batch: int = field(32, "Configurations per step, over all devices.")
  chunk: int = field(4, "Configurations vectorised at once on a device.")
  path_gradient: bool = field(True, "Leave out the score term of the gradient.")
  determinant: str = field("stochastic", "Quarks in training: stochastic, exact or none.")
  num_noise: int = field(4, "Noise vectors of the stochastic determinant gradient.")
  mu0: float = field(1e-5, "Regulator of D D^dag + mu0 in training.")
  evaluate_every: int = field(20, "Steps between evaluations with the exact determinant.")
  num_evaluate: int = field(32, "Configurations of an evaluation.")
  checkpoint_every: int = field(20, "Steps between checkpoints.")
  keep: int = field(3, "Checkpoints kept.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    if self.determinant not in ("stochastic", "exact", "none"):
      raise ValueError(f"training.determinant must be stochastic, exact or none, not '{self.determinant}'")
    for name in (
      "batch",
      "chunk",
      "num_noise",
      "evaluate_every",
      "num_evaluate",
      "checkpoint_every",
    ):
      if getattr(self, name) < 1:
        raise ValueError(f"training.{name} must be at least 1, not {getattr(self, name)}")
    if self.num_steps < 0:
      raise ValueError(f"training.num_steps must not be negative, not {self.num_steps}")


@dataclasses.dataclass(frozen=True)
class Sampling:
  """Flow samples with exact weights."""

  num_samples: int = field(1024, "Configurations drawn.")
  batch: int = field(64, "Configurations per file; what a kill can cost.")
  chunk: int = field(4, "Configurations vectorised at once on a device.")
  num_haar: int = field(65_536, "Haar-random configurations for the ESS of plain reweighting; 0 for none.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot sample."""
    if min(self.num_samples, self.batch, self.chunk) < 1 or self.num_haar < 0:
      raise ValueError("sampling.num_samples, batch and chunk must be at least 1, num_haar at least 0")


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

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot run."""
    if min(self.streams, self.trajectories, self.thin, self.steps) < 1 or self.thermalisation < 0:
      raise ValueError("hmc.streams, trajectories, thin and steps must be at least 1")
    if self.trajectories % self.thin:
      raise ValueError(f"hmc.trajectories = {self.trajectories} must be a multiple of hmc.thin = {self.thin}")
    if self.tau <= 0:
      raise ValueError(f"hmc.tau must be positive, not {self.tau}")
    if self.integrator not in ("leapfrog", "omelyan2", "omelyan4"):
      raise ValueError(f"hmc.integrator must be leapfrog, omelyan2 or omelyan4, not '{self.integrator}'")
    if self.hasenbusch_mass < 0:
      raise ValueError(f"hmc.hasenbusch_mass must not be negative, not {self.hasenbusch_mass}")


@dataclasses.dataclass(frozen=True)
class Measurement:
  """Observables of stored configurations."""

  flow_time: float = field(4.0, "Wilson flow time t/a^2 of the topological charge.")
  tolerance: float = field(1e-3, "Local error of the adaptive flow.")
  chunk: int = field(4, "Configurations vectorised at once on a device.")
  bins: int = field(24, "Bins of the histograms.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot measure."""
    if self.flow_time < 0 or self.tolerance <= 0 or self.chunk < 1 or self.bins < 2:
      raise ValueError("measurement needs flow_time >= 0, tolerance > 0, chunk >= 1, bins >= 2")


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A whole run."""

  theory: Theory = Theory()
  flow: trivializing.Config = trivializing.Config()
  optimizer: optimizer.Config = optimizer.Config(learning_rate=0.02, decay_steps=100)
  training: Training = Training()
  sampling: Sampling = Sampling()
  hmc: HMC = HMC()
  measurement: Measurement = Measurement()
  precision: str = field("double", "Working precision: single or double.")
  seed: int = field(2208, "Seed of all randomness.")
  output: str = field("runs/reproduce", "Folder of this run.")

  def __post_init__(self) -> None:
    """Raise ValueError for combinations that cannot run."""
    if self.precision not in ("single", "double"):
      raise ValueError(f"precision must be single or double, not '{self.precision}'")
    if min(self.theory.lattice) < 3:
      raise ValueError(f"the trivializing flow needs extents of at least 3, not {self.theory.lattice}")


_PAPER = Experiment(
  sampling=Sampling(num_samples=65_536, batch=256, num_haar=65_536),
  hmc=HMC(trajectories=8_190, thermalisation=500),
  output="runs/paper",
)

_SMOKE = Experiment(
  theory=Theory(nc=1, lattice=(4, 4), beta=1.0, kappa=0.15, boundary=(-1.0, 1.0)),
  flow=trivializing.Config(steps=4),
  training=Training(num_steps=4, batch=16, evaluate_every=2, num_evaluate=16, checkpoint_every=2, num_noise=2),
  sampling=Sampling(num_samples=256, batch=64, chunk=64, num_haar=256),
  hmc=HMC(streams=4, trajectories=200, thermalisation=20, thin=2),
  measurement=Measurement(chunk=64, flow_time=1.0, bins=8),
  output="runs/smoke",
)

PRESETS = {"paper": _PAPER, "reproduce": Experiment(), "smoke": _SMOKE}
"""paper: the statistics of arXiv:2208.03832, figure 2. reproduce: the same point in minutes. smoke: the whole chain on the
Schwinger model in seconds."""
