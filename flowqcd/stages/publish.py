"""Trained models as files with cards, after sampling: `python -m experiments.publish --preset=su3_4d`."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from flowqcd.analysis import weights
from flowqcd.io import ensembles, metrics
from flowqcd.models import zoo
from flowqcd.runs import configuration, environment, settings, systems
from flowqcd.stages import train_conditional
from flowqcd.types import Params

_RECIPE = ("training.", "conditional_training.", "optimizer.", "natural.")


def run(config: settings.Experiment) -> list[zoo.Model]:
  """Write what this run has trained, for `flowqcd.models.zoo.load`, into its folder, with the ESS of its samples.

  model.safetensors has the marginal model, conditional.safetensors the conditional one. Raises ValueError for flows that
  cannot be published and unfinished runs, FileExistsError where a file is already there.
  """
  environment.start(config)
  folder = environment.claim(config)
  of_links = config.training.num_steps and config.marginal in ("trivializing", "spectral") and not config.prior.beta
  networks = config.is_joint and sum(config.conditional_training.steps) and config.conditional.kind == "ptcn"
  if not of_links and not networks:
    raise ValueError(
      "only a trivializing or spectral flow from Haar links, or PTCNs alone, that this run has trained can be published"
    )
  store = ensembles.Ensemble.open(folder / "flow")
  if len(store) < config.sampling.num_samples:
    raise ValueError(
      f"{folder} has {len(store)} of {config.sampling.num_samples} samples; finish experiments.sample first"
    )
  models, params = [], train_conditional.run(config)  # As sampling has used them, rounded where that was asked for.
  if of_links:
    models.append(_write(folder / "model.safetensors", _marginal_card(config, folder, store), params.marginal))
  if networks:
    card = _conditional_card(config, folder, store)
    models.append(_write(folder / "conditional.safetensors", card, params.conditional))
  return models


def _write(path: pathlib.Path, card: zoo.Card, params: Params) -> zoo.Model:
  model = zoo.Model(card, params)
  zoo.save(path, model)
  environment.say(f"{path}: {card.description}, ess {card.ess:.4f}")
  return model


def _marginal_card(config: settings.Experiment, folder: pathlib.Path, store: ensembles.Ensemble) -> zoo.Card:
  plan, spectral = config.family, config.marginal == "spectral"
  description = _description(config)
  if plan.betas:
    pairs = zip(plan.betas, plan.kappas or [0.0] * len(plan.betas))
    description += "; trained at (beta, kappa) = " + ", ".join(f"({beta:g}, {kappa:g})" for beta, kappa in pairs)
  return _card(
    config,
    folder / "training.jsonl",
    store.read("log_w"),
    description=description,
    flow=dataclasses.asdict(config.coupling if spectral else config.flow),
    family=dataclasses.asdict(systems.family_polynomial(config)) if plan.betas else None,
    kind=config.marginal,
    configurations=config.training.num_steps * config.training.batch * max(1, len(plan.betas)),
  )


def _conditional_card(config: settings.Experiment, folder: pathlib.Path, store: ensembles.Ensemble) -> zoo.Card:
  training = config.conditional_training
  return _card(
    config,
    folder / "conditional.jsonl",
    store.read("log_w_joint"),
    description=f"pseudofermions of {_description(config)}; ESS with the {config.marginal} flow of links",
    flow=dataclasses.asdict(config.conditional.ptcn),
    kind="ptcn_odd" if config.conditional.even_odd else "ptcn",
    draws=config.conditional.draws,
    configurations=sum(n * batch for n, batch in zip(training.steps, training.batches)),
  )


def _description(config: settings.Experiment) -> str:
  theory = config.theory
  quarks = f", two flavours of Wilson quarks at kappa = {theory.kappa}" if theory.num_flavours else ""
  return f"SU({theory.nc}) on {'x'.join(map(str, theory.lattice))} at beta = {theory.beta}{quarks}"


def _card(config: settings.Experiment, log: pathlib.Path, log_w: np.ndarray, **fields: object) -> zoo.Card:
  theory = config.theory
  return zoo.Card(
    nc=theory.nc,
    lattice=theory.lattice,
    beta=theory.beta,
    kappa=theory.kappa if theory.num_flavours else 0.0,
    boundary=theory.boundary,
    ess=float(weights.ess(log_w)),
    ess_error=weights.ess_error(log_w),
    num_samples=len(log_w),
    cpu_seconds=float(metrics.read(log)["cpu_seconds"][-1]),
    recipe={k: v for k, v in configuration.to_dict(config).items() if k.startswith(_RECIPE)},
    **fields,
  )
