"""What each command does with a configuration: stages in their order, each with what it needs of the tree.

Every command goes on from what it finds in the run's folder. All but `measure_files` and `profile_training` run on several
hosts too, with the same results; the folder is the first process's.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from flowqcd import distributed, experiment, hosts, presets
from flowqcd.experiment import Experiment
from flowqcd.io.ensembles import Ensemble
from flowqcd.models import joint, zoo
from flowqcd.runs import conditionals, marginals, progress, session, tree
from flowqcd.runs.folder import Run
from flowqcd.stages import anneal as anneal_stage
from flowqcd.stages import annealing, figures, fitting, haar, step_error
from flowqcd.stages import compare_chains as compare_stage
from flowqcd.stages import measure as measure_stage
from flowqcd.stages import measure_files as files_stage
from flowqcd.stages import profile_training as profile_stage
from flowqcd.stages import publish as publish_stage
from flowqcd.stages import run_hmc as hmc_stage
from flowqcd.stages import sample as sample_stage
from flowqcd.stages import train_conditional as conditional_stage
from flowqcd.stages import train_marginal as marginal_stage
from flowqcd.stages.draws import Estimates
from flowqcd.stages.train_conditional import Trained
from flowqcd.types import Params


def train_marginal(config: Experiment) -> Params:
  """Train the flow of the links, or go on training.

  Writes training.jsonl, training.png and checkpoints/. With training.num_steps = 0 there is nothing to train.
  """
  return _marginal(*_begin(config))


def train_conditional(config: Experiment) -> Trained:
  """Train the flow of the links, then the model of pseudofermions on links of it.

  Writes what train_marginal writes, and conditional.jsonl, conditional.png and conditional_checkpoints/.
  """
  return _trained(*_begin(config))


def sample(config: Experiment) -> Ensemble:
  """Draw configurations from the flow with exact weights, after training, and return their ensemble.

  Writes the ensemble flow/, flow_steps.json (what the integrator's steps do to weights) and haar.json (the ESS of plain
  reweighting).
  """
  return _sampled(*_begin(config))


def run_hmc(config: Experiment) -> Ensemble:
  """Hybrid Monte Carlo in independent streams; return their ensemble.

  Writes the ensemble hmc/: every thin-th configuration, and dH, acceptance and plaquette of all trajectories.
  """
  config, run = _begin(config)
  return hmc_stage.run(run, config.theory, config.hmc)


def measure(config: Experiment) -> tuple[Ensemble, Ensemble]:
  """Measure the observables of flow and HMC, after drawing both, and return what was measured on each.

  Writes the ensembles flow-measured/ and hmc-measured/, part by part beside those they belong to, and wilson_flow.json.
  """
  return _measured(*_begin(config))


def measure_files(config: Experiment, paths: Sequence[str]) -> list[files_stage.Row]:
  """With configuration files, of any format: measure those, as one chain in the order given, and return the table.

  Writes observables.h5, .md, .csv and .png into --config.output, a folder that holds nothing yet. Colours and extents are
  the files', those of bare data measurement.extents; the pion is that of theory.kappa and theory.boundary, and left out
  with theory.num_flavours = 0.
  """
  if config.output in {preset.output for preset in presets.PRESETS.values()}:
    raise ValueError("measuring files needs --config.output=FOLDER, a new folder for what is found")
  session.start(config.compilation)
  distributed.split_lattices(config.lattice_devices)
  dtype = session.dtype(config.precision)
  return files_stage.run(pathlib.Path(config.output), config.theory, config.measurement, paths, dtype)


def make_figures(config: Experiment) -> dict[str, Any]:
  """Figures, report and summary of a measured run; return the content of summary.json.

  Writes figure2, figure3, log_weights, pion and draws as PNG and PDF where there is something to show, summary.json and
  report.md. They are made anew from what is stored.
  """
  return _figures(*_begin(config))


def reproduce(config: Experiment) -> dict[str, Any]:
  """The whole chain: train, sample, HMC, measure, figures; return the content of summary.json.

  The same command after a kill finishes the run.
  """
  config, run = _begin(config)
  _measured(config, run)
  summary = _figures(config, run)
  progress.say(f"{session.startup_seconds():.1f} s of imports, traces and compilations")
  return summary


def anneal(config: Experiment) -> dict[str, Any]:
  """Annealed importance sampling from a flow to a stronger coupling; return the content of annealed.json.

  The flow is for annealing.start_beta and start_kappa, its parameters those of training.start_from or the analytic ones.
  Writes the ensemble annealed/, path.json (the fitted flow between couplings), what steps do to weights, annealed.json and
  annealed.png.
  """
  course = annealing.course(config.theory, config.annealing, config.hmc)
  marginals.check(config.links, course.start)
  config, run = _begin(config)
  setup = marginal_stage.prepare(run.seed, course.start, config.links, config.training, config.optimizer)
  return anneal_stage.run(run, course, config.links, setup.state.params, config.sampling)


def compare_chains(config: Experiment) -> dict[str, Any]:
  """HMC, heat bath and the flow for every link of SU(3) gauge theory: what an independent value costs of each.

  Writes an ensemble for each and one of what is measured on it, chains.json, chains.md and chains.png; returns the content
  of chains.json.
  """
  compare_stage.check(config.theory, config.hmc)
  config, run = _begin(config)
  return compare_stage.run(run, config.theory, config.hmc, config.sweeps, config.measurement)


def publish(config: Experiment) -> list[zoo.Model]:
  """Trained models as files with cards, for `flowqcd.models.zoo.load`, with the ESS of this run's samples.

  Writes model.safetensors, the flow of the links, and conditional.safetensors, the model of pseudofermions. On several
  hosts the first process returns them. Raises ValueError for flows that cannot be published and unfinished runs,
  FileExistsError where a file is already there.
  """
  publish_stage.check(config.theory)
  config, run = _begin(config)
  theory, links, training = config.theory, config.links, config.conditional_training
  of_links = publish_stage.has_marginal(links, config.training)
  networks = publish_stage.has_conditional(config.conditional, theory, training)
  if not of_links and not networks:
    raise ValueError(
      "only a trivializing or spectral flow from Haar links, or PTCNs alone, that this run has trained can be published"
    )
  store = hosts.on_first(lambda: publish_stage.samples(run, config.sampling.num_samples))
  params = _trained(config, run)  # As sampling has used them, rounded where that was asked for.

  def written() -> list[zoo.Model]:
    models = []
    if of_links:
      models.append(publish_stage.marginal(run, theory, links, config.training, store, params.marginal))
    if networks:
      model = publish_stage.conditional(run, theory, links, config.conditional, training, store, params.conditional)
      models.append(model)
    return models

  return hosts.on_first(written) or []


def profile_training(config: Experiment) -> dict[str, profile_stage.Cost]:
  """What a training step costs: the gradient of one chunk on one device, and its parts by themselves.

  Prints a table; writes nothing.
  """
  session.start(config.compilation)
  config = experiment.on_devices(config)
  return profile_stage.run(
    config.seed,
    config.theory,
    config.links,
    config.training,
    config.optimizer,
    config.conditional,
    config.conditional_training,
  )


def _begin(config: Experiment) -> tuple[Experiment, Run]:
  session.start(config.compilation, several_hosts=True)
  distributed.split_lattices(config.lattice_devices)
  config = experiment.on_devices(config)
  return config, experiment.claim(config)


def _marginal(config: Experiment, run: Run) -> Params:
  steps = marginal_stage.Steps(config.optimizer, config.natural)
  return marginal_stage.train(run, config.theory, config.links, config.training, steps)


def _trained(config: Experiment, run: Run) -> Trained:
  fixed = _marginal(config, run)
  if not config.is_joint:
    return Trained(fixed, ())
  params = conditional_stage.train(
    run,
    config.theory,
    config.links,
    fixed,
    config.conditional,
    config.conditional_training,
    config.optimizer,
    fitting.Limits(config.training.max_growth, config.training.max_bad_steps),
  )
  return Trained(fixed, params)


def _sampled(config: Experiment, run: Run) -> Ensemble:
  theory, links, choice, plan = config.theory, config.links, config.conditional, config.sampling
  params = _trained(config, run)
  step_error.check_flow(run, theory, links, params.marginal, plan.chunk)
  model, estimates = marginals.model(links, theory, run.dtype), None
  if config.is_joint:
    fermions = conditionals.model(choice, theory, run.precision)
    make = lambda count, first: joint.log_determinant(fermions, count, choice.chunk, first)
    estimates = Estimates(choice.draws, make)
  store = sample_stage.fill(run, theory, model, estimates, params, plan)
  haar.ess(run, theory, plan.num_haar, plan.chunk)
  return store


def _measured(config: Experiment, run: Run) -> tuple[Ensemble, Ensemble]:
  theory, plan = config.theory, config.measurement
  sources = _sampled(config, run), hmc_stage.run(run, theory, config.hmc)
  flow, hmc = (measure_stage.fill(run, theory, source, plan) for source in sources)
  measure_stage.check_wilson_flow(run, sources[0], flow, plan)
  return flow, hmc


def _figures(config: Experiment, run: Run) -> dict[str, Any]:
  settings = tree.to_dict(config)
  return hosts.shared(lambda: figures.draw(run, config.theory, config.prior, config.measurement.bins, settings))
