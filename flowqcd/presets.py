"""Named configurations of the whole chain."""

from __future__ import annotations

import dataclasses

from flowqcd.experiment import Experiment
from flowqcd.flows import conv, coupling, hopping, ptcn, trivializing
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.theories import Theory
from flowqcd.runs.trajectories import HMC
from flowqcd.stages.measure import Measurement
from flowqcd.stages.sample import Sampling
from flowqcd.stages.train_conditional import ConditionalTraining
from flowqcd.stages.training import Training
from flowqcd.training import optimizer

_REPRODUCE = Experiment(conditional=Conditional(kind="hopping", hopping=hopping.Config(order=2)))

_STATISTICS = dataclasses.replace(
  _REPRODUCE,
  sampling=Sampling(num_samples=65_536, batch=256, num_haar=65_536),
  hmc=HMC(trajectories=8_190, thermalisation=500),
  output="runs/statistics",
)

_PAPER = dataclasses.replace(
  _STATISTICS,
  marginal="spectral",
  coupling=coupling.Config(remat=True),
  optimizer=optimizer.Config(),
  training=Training(
    num_steps=21_000, batch=512, chunk=512, precision="single", path_gradient=False, num_noise=1, even_odd=False,
    evaluate_every=500, num_evaluate=256, checkpoint_every=100,
  ),
  conditional=Conditional(kind="ptcn", draws=512, even_odd=False),
  conditional_training=ConditionalTraining(
    # One optimiser state throughout; the second phase of the paper is two here, for its step in the rate.
    steps=(16_000, 20_000, 8_000, 17_000), batches=(640, 640, 640, 800), rates=(1e-4, 5e-5, 2.5e-5, 2.5e-5), chunk=160,
    evaluate_every=500, num_evaluate=64, checkpoint_every=100,
  ),
  output="runs/paper",
)  # fmt: skip

_PAPER_DESKTOP = dataclasses.replace(
  _PAPER,
  # Bounds of gradients that only catch accidents, and a memory of squared ones short enough to forget the first steps.
  optimizer=optimizer.Config(
    learning_rate=1e-3, decay=0.7, decay_steps=60, epsilon=1e-12, beta2=0.99, warmup=10, max_norm=1e3, max_value=1e2
  ),
  training=dataclasses.replace(
    _PAPER.training, num_steps=300, batch=16, chunk=16, path_gradient=True, num_noise=2, even_odd=True, round=True,
    evaluate_every=100, num_evaluate=128, checkpoint_every=10,
  ),
  conditional=dataclasses.replace(_PAPER.conditional, chunk=1),
  conditional_training=ConditionalTraining(
    steps=(600, 3000, 300), batches=(2, 2, 2), rates=(1.5e-3, 1e-3, 3e-4), path_gradient=True, chunk=1,
    evaluate_every=300, num_evaluate=32, checkpoint_every=50,
  ),
  sampling=Sampling(num_samples=1024, batch=16, chunk=1, num_haar=65_536),
  hmc=HMC(),
  precision="single",
  output="runs/paper_desktop",
)  # fmt: skip

_PAPER_SMALL = Experiment(
  marginal="spectral",
  coupling=coupling.Config(bins=8, remat=True, net=conv.Config(hidden=(8,), gain=0.7)),
  optimizer=optimizer.Config(learning_rate=5e-3, decay=0.5, decay_steps=200, epsilon=1e-5, max_value=10.0),
  training=Training(
    num_steps=800, batch=32, chunk=16, precision="single", path_gradient=False, num_noise=1,
    evaluate_every=200, num_evaluate=128, checkpoint_every=20,
  ),
  conditional=Conditional(kind="hopping"),
  output="runs/paper_small",
)  # fmt: skip


def _two_dimensional(nc: int, beta: float, lattice: tuple[int, int], layers: int, output: str) -> Experiment:
  """Pure gauge theory in two dimensions, as in arXiv:2003.06413 and 2008.05456, smaller and trained in minutes."""
  return Experiment(
    theory=Theory(nc=nc, lattice=lattice, beta=beta, num_flavours=0, boundary=(-1.0, 1.0)),
    marginal="spectral",
    coupling=coupling.Config(layers=layers, bins=8, net=conv.Config(hidden=(8, 8), gain=0.7)),
    optimizer=optimizer.Config(learning_rate=5e-3, decay=0.5, decay_steps=200, epsilon=1e-5, max_value=10.0),
    training=Training(
      num_steps=800, batch=128, chunk=64, precision="single", evaluate_every=100, num_evaluate=512,
      checkpoint_every=50, path_gradient=False,
    ),
    sampling=Sampling(num_samples=8192, batch=1024, chunk=64, num_haar=8192),
    hmc=HMC(streams=8, trajectories=2000, thermalisation=200, thin=5, tau=1.0, steps=10),
    measurement=Measurement(chunk=64, flow_time=1.0),
    output=output,
  )  # fmt: skip


def _with_quarks(base: Experiment, kappa: float, steps: int, output: str) -> Experiment:
  """Two flavours on a pure-gauge preset, as in arXiv:2202.11712 and 2207.08945, but smaller."""
  return dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, num_flavours=2, kappa=kappa),
    training=dataclasses.replace(base.training, num_steps=steps, num_noise=1),
    conditional=Conditional(kind="hopping", hopping=hopping.Config(order=2)),
    conditional_training=ConditionalTraining(
      steps=(200, 100), batches=(64, 64), rates=(1e-2, 3e-3), chunk=32, num_evaluate=256
    ),
    sampling=Sampling(num_samples=4096, batch=512, chunk=16, num_haar=8192),
    output=output,
  )


_SMOKE = Experiment(
  theory=Theory(nc=1, lattice=(4, 4), beta=1.0, kappa=0.15, boundary=(-1.0, 1.0)),
  flow=trivializing.Config(steps=2),
  coupling=coupling.Config(layers=8, bins=4, net=conv.Config(hidden=(4,))),
  training=Training(num_steps=4, batch=16, evaluate_every=2, num_evaluate=16, checkpoint_every=2, num_noise=2),
  sampling=Sampling(num_samples=256, batch=64, chunk=64, num_haar=256),
  hmc=HMC(streams=4, trajectories=600, thermalisation=100, thin=5),
  measurement=Measurement(chunk=64, flow_time=1.0, bins=8),
  conditional=Conditional(kind="both", draws=8, chunk=8, ptcn=ptcn.Config(layers=8, hops=2, copies=2, trunk=2)),
  conditional_training=ConditionalTraining(
    steps=(2, 2), batches=(16, 16), rates=(1e-3, 5e-4), evaluate_every=2, num_evaluate=16, checkpoint_every=2
  ),
  compilation="quick",
  output="runs/smoke",
)

_SU3_4D = dataclasses.replace(
  _REPRODUCE,
  theory=Theory(beta=2.0, num_flavours=0),
  flow=trivializing.Config(degree=2, steps=4, lines=False),
  training=Training(
    method="natural", num_steps=8, batch=256, chunk=8, precision="single", evaluate_every=1, num_evaluate=256,
    checkpoint_every=1,
  ),
  conditional=Conditional(),
  sampling=dataclasses.replace(_REPRODUCE.sampling, num_samples=1024, num_haar=0),
  output="runs/su3_4d",
)  # fmt: skip

_U1_2D = _two_dimensional(1, 2.0, (8, 8), 16, "runs/u1_2d")

_ALL = {
  "paper": (_PAPER, "the models of arXiv:2208.03832 as trained there, the statistics of its figure 2; for clusters"),
  "paper_desktop": (_PAPER_DESKTOP, "the same models, trained in hours on a desktop by another optimiser"),
  "paper_small": (_PAPER_SMALL, "the paper's marginal model, smaller, trained on a CPU in an hour"),
  "reproduce": (_REPRODUCE, "analytic trivializing flow and hopping expansion at the paper's point, in minutes"),
  "smoke": (_SMOKE, "the whole chain on the Schwinger model, in seconds"),
  "statistics": (_STATISTICS, "reproduce with the paper's statistics, in hours"),
  "schwinger": (
    _with_quarks(_U1_2D, 0.2, 800, "runs/schwinger"),
    "U(1) with two flavours in two dimensions, marginal and then conditional model trained in minutes",
  ),
  "su2_2d": (
    _two_dimensional(2, 2.2, (8, 8), 16, "runs/su2_2d"),
    "SU(2) gauge theory in two dimensions, trained in minutes",
  ),
  "su3_4d": (
    _SU3_4D,
    "SU(3) gauge theory on 4^4 at beta = 2, a trivializing flow trained by natural gradient in minutes",
  ),
  "su3_2d": (
    _two_dimensional(3, 5.0, (8, 8), 24, "runs/su3_2d"),
    "SU(3) gauge theory in two dimensions, trained in minutes",
  ),
  "su3_2d_nf2": (
    _with_quarks(_two_dimensional(3, 4.0, (8, 8), 16, ""), 0.2, 400, "runs/su3_2d_nf2"),
    "SU(3) with two flavours in two dimensions, marginal and then conditional model trained",
  ),
  "u1_2d": (_U1_2D, "U(1) gauge theory in two dimensions, trained in minutes"),
}

PRESETS: dict[str, Experiment] = {name: config for name, (config, _) in _ALL.items()}

LINES: dict[str, str] = {name: line for name, (_, line) in _ALL.items()}
"""What each of them is."""
