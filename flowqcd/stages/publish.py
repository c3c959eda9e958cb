"""Trained models as files with cards, after sampling."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from flowqcd.analysis import weights
from flowqcd.io import ensembles, metrics
from flowqcd.models import zoo
from flowqcd.runs import families, marginals, progress, theories
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.stages import draws
from flowqcd.stages.train_conditional import ConditionalTraining
from flowqcd.stages.training import Training
from flowqcd.types import Params

_RECIPE = ("training.", "conditional_training.", "optimizer.", "natural.")


def check(theory: Theory) -> None:
  """Raise ValueError for theories that cards have no words for."""
  theories.require_untwisted(theory, "published models", "the run's checkpoints serve training.start_from")
  theories.require_plaquettes(theory, "published models", "the run's checkpoints serve training.start_from")


def has_marginal(links: marginals.Choice, training: Training) -> bool:
  """Whether a run trains a flow of links that can be published."""
  return training.num_steps > 0 and links.name in ("trivializing", "spectral") and not links.prior.beta


def has_conditional(choice: Conditional, theory: Theory, training: ConditionalTraining) -> bool:
  """Whether a run trains a model of pseudofermions that can be published."""
  return theory.num_flavours > 0 and sum(training.steps) > 0 and choice.kind == "ptcn"


def samples(run: Run, num_samples: int) -> ensembles.Ensemble:
  """The run's flow samples. Raises ValueError where these are not all there."""
  store = ensembles.Ensemble.open(run.folder / "flow")
  if len(store) < num_samples:
    raise ValueError(f"{run.folder} has {len(store)} of {num_samples} samples; finish `flowqcd sample` first")
  return store


def marginal(
  run: Run, theory: Theory, links: marginals.Choice, training: Training, store: ensembles.Ensemble, params: Params
) -> zoo.Model:
  """Write model.safetensors, for `flowqcd.models.zoo.load`, with the ESS of the samples. Raises FileExistsError."""
  plan, description = links.family, _description(theory)
  if plan.betas:
    pairs = ", ".join(f"({beta:g}, {kappa:g})" for beta, kappa in plan.couplings)
    description += f"; trained at (beta, kappa) = {pairs}"
  card = _card(
    run,
    theory,
    "training.jsonl",
    store.read("log_w"),
    description=description,
    flow=dataclasses.asdict(links.settings),
    family=dataclasses.asdict(families.polynomial(plan)) if plan.betas else None,
    kind=links.name,
    configurations=training.num_steps * training.batch * max(1, len(plan.betas)),
  )
  return _write(run.folder / "model.safetensors", card, params)


def conditional(
  run: Run,
  theory: Theory,
  links: marginals.Choice,
  choice: Conditional,
  training: ConditionalTraining,
  store: ensembles.Ensemble,
  params: Params,
) -> zoo.Model:
  """The same of the conditional model, as conditional.safetensors."""
  found = draws.read(store)
  card = _card(
    run,
    theory,
    "conditional.jsonl",
    found.log_w,
    description=f"pseudofermions of {_description(theory)}; ESS with the {links.name} flow of links",
    flow=dataclasses.asdict(choice.ptcn),
    kind="ptcn_odd" if choice.even_odd else "ptcn",
    draws=found.log_draws.shape[1],
    configurations=sum(n * batch for n, batch in zip(training.steps, training.batches)),
  )
  return _write(run.folder / "conditional.safetensors", card, params)


def _write(path: pathlib.Path, card: zoo.Card, params: Params) -> zoo.Model:
  model = zoo.Model(card, params)
  zoo.save(path, model)
  progress.say(f"{path}: {card.description}, ess {card.ess:.4f}")
  return model


def _description(theory: Theory) -> str:
  quarks = f", two flavours of Wilson quarks at kappa = {theory.kappa}" if theory.num_flavours else ""
  return f"SU({theory.nc}) on {'x'.join(map(str, theory.lattice))} at beta = {theory.beta}{quarks}"


def _card(run: Run, theory: Theory, log: str, log_w: np.ndarray, **fields: Any) -> zoo.Card:
  # A card that is read has tuples where JSON has lists.
  plain = lambda value: tuple(value) if isinstance(value, list) else value
  return zoo.Card(
    nc=theory.nc,
    lattice=theory.lattice,
    beta=theory.beta,
    kappa=theory.kappa if theory.num_flavours else 0.0,
    boundary=theory.boundary,
    ess=float(weights.ess(log_w)),
    ess_error=weights.ess_error(log_w),
    num_samples=len(log_w),
    cpu_seconds=float(metrics.read(run.folder / log)["cpu_seconds"][-1]),
    recipe={name: plain(value) for name, value in run.config.items() if name.startswith(_RECIPE)},
    **fields,
  )
