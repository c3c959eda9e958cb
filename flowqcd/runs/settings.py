"""What can be set, from theory to measurement: a tree of frozen dataclasses, each checked when made."""

from __future__ import annotations

import dataclasses

from flowqcd.flows import coupling, hopping, masks, ptcn, residual, trivializing, wilson_loops
from flowqcd.runs.configuration import field
from flowqcd.training import natural, optimizer


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
class Family:
  """Couplings that one trivializing flow is trained at together; without any it is for the theory's alone."""

  betas: tuple[float, ...] = field((), "beta at each of them; the theory's is where the flow is evaluated and sampled.")
  kappas: tuple[float, ...] = field((), "kappa at each of them, where there are quarks.")
  order: int = field(3, "Order in beta and kappa^4 of the learned part.")

  def __post_init__(self) -> None:
    """Raise ValueError for a family that is not there."""
    if self.betas and (min(self.betas) < 0 or max(self.betas) <= 0):
      raise ValueError(f"family.betas must not be negative, and not all zero, not {self.betas}")
    if self.kappas and (len(self.kappas) != len(self.betas) or min(self.kappas) <= 0):
      raise ValueError(f"family.kappas must be positive, and as many as family.betas, not {self.kappas}")
    if self.order < 1:
      raise ValueError(f"family.order must be at least 1, not {self.order}")


@dataclasses.dataclass(frozen=True)
class Training:
  """Reverse-KL training of the marginal flow; none for num_steps = 0, the analytic flow."""

  method: str = field("adam", "adam, or natural: natural gradient, for models of few parameters.")
  loss: str = field("reverse_kl", "reverse_kl, or variance: of log w, whose gradient needs no force of the action.")
  num_steps: int = field(0, "Optimisation steps; 0 uses the analytic coefficients as they are.")
  batch: int = field(32, "Configurations per step, over all devices.")
  chunk: int = field(4, "Configurations vectorised at once on a device; gradients of chunks are accumulated.")
  precision: str = field("double", "Working precision of training: single or double.")
  start_from: str = field(
    "",
    "Folder of a finished or stopped run whose parameters are the start, other volumes included; or a published model, by "
    "name or file.",
  )
  round: bool = field(
    False, "Round trained parameters to 16 bits, as a published model has them, before they are used."
  )
  path_gradient: bool = field(True, "Leave out the score term of the gradient.")
  determinant: str = field("stochastic", "Quarks in training: stochastic, exact or none.")
  num_noise: int = field(4, "Noise vectors of the stochastic determinant gradient.")
  even_odd: bool = field(True, "Noise on odd sites only, for M M^dag + mu0 with the Schur complement M.")
  mu0: float = field(1e-5, "Regulator of D D^dag + mu0 in training.")
  max_growth: float = field(100.0, "Steps whose gradient exceeds this many times the usual norm are skipped.")
  max_bad_steps: int = field(20, "Skipped steps in a row that end the training.")
  evaluate_every: int = field(20, "Steps between evaluations with the exact determinant.")
  num_evaluate: int = field(32, "Configurations of an evaluation.")
  checkpoint_every: int = field(20, "Steps between checkpoints.")
  keep: int = field(3, "Checkpoints kept.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    if self.determinant not in ("stochastic", "exact", "none"):
      raise ValueError(f"training.determinant must be stochastic, exact or none, not '{self.determinant}'")
    if self.method not in ("adam", "natural"):
      raise ValueError(f"training.method must be adam or natural, not '{self.method}'")
    if self.loss not in ("reverse_kl", "variance"):
      raise ValueError(f"training.loss must be reverse_kl or variance, not '{self.loss}'")
    if self.precision not in ("single", "double"):
      raise ValueError(f"training.precision must be single or double, not '{self.precision}'")
    if self.max_growth <= 1:
      raise ValueError(f"training.max_growth must be above 1, not {self.max_growth}")
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
class Prior:
  """What the flow starts from: Haar-random links, or a pure gauge theory by heat bath."""

  beta: float = field(
    0.0, "Coupling of a pure-gauge heat-bath prior; 0 for Haar. ln Z is then relative to the prior's."
  )
  sweeps: int = field(20, "Heat-bath sweeps from Haar links to a sample of the prior.")

  def __post_init__(self) -> None:
    """Raise ValueError for a prior that is not there."""
    if self.beta < 0 or self.sweeps < 1:
      raise ValueError(
        f"prior.beta must not be negative and prior.sweeps at least 1, not {self.beta} and {self.sweeps}"
      )


@dataclasses.dataclass(frozen=True)
class Conditional:
  """The model of pseudofermions at given links; plays no part where there are no quarks."""

  kind: str = field(
    "none", "none; hopping: from the hopping expansion; ptcn: the paper's networks; both: ptcn, then hopping."
  )
  draws: int = field(16, "Pseudofermion draws for each configuration in sampling and evaluation.")
  chunk: int = field(16, "Draws vectorised at once for each configuration.")
  even_odd: bool = field(True, "Pseudofermions on odd sites, for the Schur complement; or else on all sites.")
  hasenbusch_mass: float = field(0.0, "Mass that splits the determinant over two pseudofermions; 0 for one.")
  hopping: hopping.Config = hopping.Config()
  ptcn: ptcn.Config = ptcn.Config()

  def __post_init__(self) -> None:
    """Raise ValueError for a model that is not there."""
    if self.kind not in ("none", "hopping", "ptcn", "both"):
      raise ValueError(f"conditional.kind must be none, hopping, ptcn or both, not '{self.kind}'")
    if min(self.draws, self.chunk) < 1:
      raise ValueError(f"conditional.draws and chunk must be at least 1, not {self.draws} and {self.chunk}")
    if self.hasenbusch_mass < 0:
      raise ValueError(f"conditional.hasenbusch_mass must not be negative, not {self.hasenbusch_mass}")
    if self.hasenbusch_mass and not self.even_odd:
      raise ValueError("conditional.hasenbusch_mass needs conditional.even_odd = true")


@dataclasses.dataclass(frozen=True)
class ConditionalTraining:
  """Reverse-KL training of the conditional model, the marginal one fixed, in phases that follow each other.

  Optimiser settings are those of `optimizer` but for the rate.
  """

  steps: tuple[int, ...] = field((0,), "Steps of each phase; 0 uses the model as it starts.")
  batches: tuple[int, ...] = field(
    (32,), "Batch of each phase, over all devices: gauge fields, each with `draws` draws."
  )
  start_from: str = field("", "As training.start_from, of the conditional model.")
  draws: int = field(1, "Draws for each gauge field, which share the networks' context.")
  path_gradient: bool = field(False, "Leave out the score term of the gradient.")
  rates: tuple[float, ...] = field((1e-3,), "Adam's rate in each phase.")
  chunk: int = field(8, "Samples vectorised at once on a device; gradients of chunks are accumulated.")
  precision: str = field("single", "Working precision of training: single or double.")
  mu0: float = field(1e-5, "Regulator of the action in training.")
  evaluate_every: int = field(50, "Steps between evaluations.")
  num_evaluate: int = field(64, "Configurations of an evaluation, each with conditional.draws draws.")
  checkpoint_every: int = field(50, "Steps between checkpoints.")
  keep: int = field(3, "Checkpoints kept.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    if not len(self.steps) == len(self.batches) == len(self.rates) > 0:
      raise ValueError(
        "conditional_training.steps, batches and rates need one entry for each phase, not "
        f"{self.steps}, {self.batches} and {self.rates}"
      )
    if min(self.steps) < 0 or min(self.batches) < 1 or min(self.rates) <= 0:
      raise ValueError("conditional_training.steps must not be negative, batches at least 1, rates positive")
    if self.precision not in ("single", "double"):
      raise ValueError(f"conditional_training.precision must be single or double, not '{self.precision}'")
    if min(self.draws, self.chunk, self.evaluate_every, self.num_evaluate, self.checkpoint_every, self.keep) < 1:
      raise ValueError(
        "conditional_training.draws, chunk, evaluate_every, num_evaluate, checkpoint_every, keep: at least 1"
      )


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
    if self.integrator not in ("leapfrog", "omelyan2", "omelyan4"):
      raise ValueError(f"hmc.integrator must be leapfrog, omelyan2 or omelyan4, not '{self.integrator}'")
    if self.hasenbusch_mass < 0:
      raise ValueError(f"hmc.hasenbusch_mass must not be negative, not {self.hasenbusch_mass}")


@dataclasses.dataclass(frozen=True)
class Sweeps:
  """Sweeps over all links of pure gauge theory, each with its staples; streams, lengths and thinning are those of hmc."""

  reflections: int = field(1, "Reflected sweeps of the link flow after each fresh one.")
  overrelaxation: int = field(1, "Microcanonical sweeps after each of the heat bath, or after those of the link flow.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot run."""
    if min(self.reflections, self.overrelaxation) < 0:
      raise ValueError(
        f"sweeps.reflections and overrelaxation must not be negative, not {self.reflections}, {self.overrelaxation}"
      )


@dataclasses.dataclass(frozen=True)
class Annealing:
  """From the flow's coupling to the theory's by Monte Carlo moves, with exact weights."""

  start_beta: float = field(0.0, "Coupling that the flow aims at; theory.beta is the last.")
  start_kappa: float = field(0.0, "kappa of the quarks that the flow aims at, 0 for none; theory.kappa is the last.")
  stages: int = field(16, "New couplings, each with one move.")
  moves: str = field(
    "heatbath",
    "heatbath or link_flow: sweeps over all links, the latter of SU(3); hmc: a trajectory, as set by hmc, for quarks.",
  )
  reflections: int = field(1, "Reflected sweeps of the link flow after each fresh one.")
  overrelaxation: int = field(0, "Microcanonical sweeps after those.")
  transport: bool = field(True, "Move the links along a fitted flow between couplings.")
  nodes: int = field(9, "Couplings at which Monte Carlo streams fit that flow.")
  streams: int = field(64, "Those streams.")
  trajectories: int = field(20, "Moves of each stream at each coupling, of which the second half is used.")
  degree: int = field(3, "Degree in the coupling of the fitted flow's coefficients.")
  loops: tuple[str, ...] = field((), "Larger loops in that flow, as aabAAB,abcABC: see flowqcd.flows.wilson_loops.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot run."""
    if self.moves not in ("heatbath", "link_flow", "hmc"):
      raise ValueError(f"annealing.moves must be heatbath, link_flow or hmc, not '{self.moves}'")
    if min(self.reflections, self.overrelaxation) < 0:
      raise ValueError(
        f"annealing.reflections and overrelaxation must not be negative, not {self.reflections}, {self.overrelaxation}"
      )
    if min(self.start_beta, self.start_kappa) < 0 or self.stages < 1:
      raise ValueError(
        "annealing needs start_beta and start_kappa >= 0 and at least one stage, not "
        f"{self.start_beta}, {self.start_kappa} and {self.stages}"
      )
    if self.nodes <= self.degree or min(self.degree, self.streams) < 1 or self.trajectories < 2:
      raise ValueError("annealing needs more nodes than its degree, a degree and streams of at least 1, 2 trajectories")


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
  marginal: str = field(
    "trivializing", "The flow of the links: trivializing, spectral coupling layers, or residual layers."
  )
  prior: Prior = Prior()
  flow: trivializing.Config = trivializing.Config()
  coupling: coupling.Config = coupling.Config()
  residual: residual.Config = residual.Config()
  family: Family = Family()
  optimizer: optimizer.Config = optimizer.Config(learning_rate=0.02, decay_steps=100)
  natural: natural.Config = natural.Config()
  training: Training = Training()
  conditional: Conditional = Conditional()
  conditional_training: ConditionalTraining = ConditionalTraining()
  sampling: Sampling = Sampling()
  hmc: HMC = HMC()
  sweeps: Sweeps = Sweeps()
  annealing: Annealing = Annealing()
  measurement: Measurement = Measurement()
  precision: str = field("double", "Working precision: single or double.")
  compilation: str = field("full", "full, or quick: programs compile in two thirds of the time and run slower.")
  seed: int = field(2208, "Seed of all randomness.")
  output: str = field("runs/reproduce", "Folder of this run.")

  def __post_init__(self) -> None:
    """Raise ValueError for combinations that cannot run."""
    if self.precision not in ("single", "double"):
      raise ValueError(f"precision must be single or double, not '{self.precision}'")
    if self.compilation not in ("full", "quick"):
      raise ValueError(f"compilation must be full or quick, not '{self.compilation}'")
    needs_log_w = "method = natural" if self.training.method == "natural" else "loss = variance"
    if self.training.method == "natural" or self.training.loss == "variance":
      if self.training.determinant == "stochastic" and self.theory.num_flavours:
        raise ValueError(f"training.{needs_log_w} fits log w itself: it needs training.determinant = exact or none")
    if self.marginal not in ("trivializing", "spectral", "residual"):
      raise ValueError(f"marginal must be trivializing, spectral or residual, not '{self.marginal}'")
    if self.marginal == "trivializing" and min(self.theory.lattice) < 3:
      raise ValueError(f"the trivializing flow needs extents of at least 3, not {self.theory.lattice}")
    wilson_loops.check(self.flow.loops, self.theory.lattice, beside_pairs=self.flow.order == 2)
    wilson_loops.check(self.annealing.loops, self.theory.lattice)
    nd = len(self.theory.lattice)
    if self.marginal == "spectral":
      masks.stack(masks.layers(self.coupling.layers, nd, self.coupling.width), self.theory.lattice)
    if self.marginal == "residual":
      masks.stack(masks.sweep(nd, self.residual.width), self.theory.lattice)
    if self.family.betas:
      self._check_family()
    if self.prior.beta and any(n % 2 for n in self.theory.lattice):
      raise ValueError(f"a heat-bath prior needs even extents, not {self.theory.lattice}")

  def _check_family(self) -> None:
    if self.marginal != "trivializing":
      raise ValueError(f"a family is of trivializing flows: it needs marginal = trivializing, not '{self.marginal}'")
    if self.training.num_steps and self.training.method != "natural":
      raise ValueError("a family is trained by natural gradient: set training.method = natural")
    if bool(self.family.kappas) != (self.theory.num_flavours > 0):
      raise ValueError("a family has kappas where the theory has quarks, and none where it has none")

  @property
  def is_joint(self) -> bool:
    """Whether there are pseudofermions to model; without quarks there are none, whatever conditional.kind says."""
    return self.conditional.kind != "none" and self.theory.num_flavours > 0
