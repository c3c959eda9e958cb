"""All that can be set of a run, from theory to measurement: the tree of its stages' settings."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import jax

from flowqcd.runs import conditionals, folder, marginals, trajectories, tree
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.families import Family
from flowqcd.runs.priors import Prior
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.runs.tree import field
from flowqcd.stages import annealing, stored, training
from flowqcd.stages.annealing import Annealing
from flowqcd.stages.measure import Measurement
from flowqcd.stages.sample import Sampling
from flowqcd.stages.sweeps import Sweeps
from flowqcd.stages.train_conditional import ConditionalTraining
from flowqcd.stages.training import Training
from flowqcd.training import natural, optimizer


@dataclasses.dataclass(frozen=True)
class _Model:
  """A theory and what its links are drawn with; settings of all kinds of flows follow."""

  theory: Theory = Theory()
  marginal: str = field(
    "trivializing",
    f"The flow of the links: {', '.join(marginals.KINDS)}, or PACKAGE.MODULE:FUNCTION, which makes one for a theory.",
  )
  prior: Prior = Prior()


@dataclasses.dataclass(frozen=True)
class Experiment(tree.with_groups(_Model, "_Model", marginals.GROUPS)):
  """A whole run."""

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
  accelerator_sites: int = field(
    65_536, "Sites of configurations vectorised at once on a GPU or TPU, at least; with 0 the chunks hold there too."
  )
  lattice_devices: int = field(
    1, "Devices over which the time slices of each lattice are spread; the other devices have other lattices."
  )
  seed: int = field(2208, "Seed of all randomness.")
  output: str = field("runs/reproduce", "Folder of this run.")
  aside: bool = field(
    False, "Move what that folder holds of other settings into a folder aside-<time> there, which is refused otherwise."
  )

  def __post_init__(self) -> None:
    """Raise ValueError for combinations that cannot run."""
    if self.precision not in ("single", "double"):
      raise ValueError(f"precision must be single or double, not '{self.precision}'")
    if self.compilation not in ("full", "quick"):
      raise ValueError(f"compilation must be full or quick, not '{self.compilation}'")
    if self.accelerator_sites < 0:
      raise ValueError(f"accelerator_sites must not be negative, not {self.accelerator_sites}")
    slices, shared_by = self.theory.lattice[0], self.lattice_devices
    if shared_by < 1 or slices % shared_by:
      raise ValueError(f"lattice_devices must divide the {slices} time slices of theory.lattice, not {shared_by}")
    training.check(self.training, self.theory)
    marginals.check(self.links, self.theory)
    annealing.check(self.annealing, self.theory)
    conditionals.check(self.conditional, self.theory)
    trajectories.check(self.hmc, self.theory)
    if self.family.betas and self.training.num_steps and self.training.method != "natural":
      raise ValueError("a family is trained by natural gradient: set training.method = natural")

  @property
  def links(self) -> marginals.Choice:
    """The flow of the links with its settings. Raises ValueError for a name that means none."""
    group = marginals.kind(self.marginal).group
    return marginals.Choice(self.marginal, getattr(self, group) if group else None, self.prior, self.family)

  @property
  def is_joint(self) -> bool:
    """Whether there are pseudofermions to model; without quarks there are none, whatever conditional.kind says."""
    return conditionals.has_model(self.conditional, self.theory)


_OPERATIONAL = ("output", "aside", "lattice_devices", "measurement.bins", "measurement.extents")
"""Fields that do not change what a run computes and stores."""


def on_devices(config: Experiment) -> Experiment:
  """The configuration with chunks for the devices that are there.

  On CPUs it is as it was: a few configurations fill a cache. Accelerators need many at once, `accelerator_sites` sites of
  them at least. What is computed does not hang on chunks, but for rounding.
  """
  if jax.default_backend() == "cpu":
    return config
  least = config.accelerator_sites * config.lattice_devices // math.prod(config.theory.lattice)
  chunks = {path: value for path, value in tree.to_dict(config).items() if path.endswith(".chunk")}
  del chunks["conditional.chunk"]  # Draws of each of so many configurations.
  return tree.override(config, {path: str(max(value, least)) for path, value in chunks.items()}, "")


def provenance(config: Experiment) -> dict[str, Any]:
  """{field: value} of all that decides what a run computes, as JSON would give it back."""
  return folder.recorded({k: v for k, v in tree.to_dict(config).items() if k not in _OPERATIONAL})


def run(config: Experiment) -> folder.Run:
  """The run of a configuration; its folder is nobody's until it is claimed."""
  products = stored.table(config.links, config.training.num_steps > 0, config.is_joint, config.annealing.moves)
  return folder.Run(
    pathlib.Path(config.output),
    config.seed,
    config.precision,
    provenance(config),
    provenance(Experiment()),
    products,
    stored.FREE,
    config.aside,
  )


def claim(config: Experiment) -> folder.Run:
  """The run, its folder held by this process until it ends. Raises as `folder.claim` does."""
  return folder.claim(run(config))
