"""A trained trivializing flow as one file with a card, after sampling: `python -m experiments.publish --preset=su3_4d`."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from experiments import configuration, environment, presets, settings, systems, train_marginal
from flowqcd.analysis import weights
from flowqcd.io import checkpoint, ensembles, metrics
from flowqcd.models import zoo


def run(config: settings.Experiment) -> zoo.Model:
  """Write model.safetensors, for `flowqcd.models.zoo.load`, into the folder of a run that was trained and sampled.

  Raises ValueError for other flows and unfinished runs, FileExistsError where the file is already there.
  """
  environment.start(config)
  folder, theory = environment.claim(config), config.theory
  if config.marginal != "trivializing" or not config.training.num_steps:
    raise ValueError("only a trivializing flow that this run has trained can be published")
  state = train_marginal.prepare(config).state
  log_w = ensembles.Ensemble.open(folder / "flow").read("log_w")
  if len(log_w) < config.sampling.num_samples:
    raise ValueError(
      f"{folder} has {len(log_w)} of {config.sampling.num_samples} samples; finish experiments.sample first"
    )
  params = checkpoint.read(folder / "checkpoints", state).params
  spent = float(metrics.read(folder / "training.jsonl")["cpu_seconds"][-1])
  quarks = f", two flavours of Wilson quarks at kappa = {theory.kappa}" if theory.num_flavours else ""
  plan = config.family
  at = f"at beta = {theory.beta}{quarks}"
  if plan.betas:
    pairs = zip(plan.betas, plan.kappas or [0.0] * len(plan.betas))
    at += "; trained at (beta, kappa) = " + ", ".join(f"({beta:g}, {kappa:g})" for beta, kappa in pairs)
  card = zoo.Card(
    description=f"SU({theory.nc}) on {'x'.join(map(str, theory.lattice))} {at}",
    nc=theory.nc,
    lattice=theory.lattice,
    beta=theory.beta,
    kappa=theory.kappa if theory.num_flavours else 0.0,
    boundary=theory.boundary,
    flow=dataclasses.asdict(config.flow),
    ess=float(weights.ess(log_w)),
    ess_error=weights.ess_error(log_w),
    num_samples=len(log_w),
    cpu_seconds=spent,
    family=dataclasses.asdict(systems.family_polynomial(config)) if plan.betas else None,
  )
  model = zoo.Model(card, {key: np.asarray(value) for key, value in params.items()})
  zoo.save(pathlib.Path(folder) / "model.safetensors", model)
  environment.say(f"{folder / 'model.safetensors'}: {card.description}, ess {card.ess:.4f}")
  return model


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "su3_4d")


if __name__ == "__main__":
  main()
