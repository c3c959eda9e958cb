"""Train the marginal flow by reverse KL: `python -m experiments.train_marginal --config.training.num_steps=...`."""

from __future__ import annotations

import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import configuration, environment, presets, systems
from flowqcd import distributed
from flowqcd.analysis import figures, weights
from flowqcd.io import checkpoint, metrics
from flowqcd.models import marginal
from flowqcd.theory import gauge
from flowqcd.training import loop, objectives, optimizer
from flowqcd.types import Params


def run(config: presets.Experiment) -> Params:
  """Train, or go on training, and return the parameters.

  Where num_steps is 0 they are those of `start_from`, or the initial ones: analytic for the trivializing flow. On several
  hosts every process trains on its share of the batch, and the first one writes. Raises ValueError where checkpoints are
  not of this model, Diverged where training cannot go on.
  """
  environment.start(config, several_hosts=True)
  environment.claim(config)
  setup = prepare(config)
  if not config.training.num_steps:
    return setup.state.params
  folder = pathlib.Path(config.output)
  saver = checkpoint.Checkpointer(folder / "checkpoints", keep=config.training.keep)
  state = setup.state
  if saver.latest_step() is not None:
    state = saver.restore(state)
    environment.say(f"training: resumed at step {int(state.step)}")
  state = _train(config, setup, state, saver)
  saver.close()
  if distributed.is_first_process():
    _curve(folder)
  return state.params


class Setup(NamedTuple):
  """The model in training precision, its optimiser, and the state before the first step."""

  model: marginal.Marginal
  transformation: optax.GradientTransformation
  state: loop.State


def prepare(config: presets.Experiment) -> Setup:
  """The model in training precision, its optimiser, and the state before the first step."""
  dtype = jnp.dtype("complex64" if config.training.precision == "single" else "complex128")
  model, root = systems.marginal_model(config, dtype), jax.random.key(config.seed)
  real = jnp.finfo(dtype).dtype
  params = jax.tree.map(lambda x: x.astype(real), model.init(jax.random.fold_in(root, 0)))
  transformation = optimizer.make(config.optimizer)
  state = loop.initial_state(jax.random.fold_in(root, 1), params, transformation)
  if config.training.start_from:
    state = state._replace(
      params=checkpoint.read(pathlib.Path(config.training.start_from) / "checkpoints", state).params
    )
  return Setup(model, transformation, state)


def _train(config: presets.Experiment, setup: Setup, state: loop.State, saver: checkpoint.Checkpointer) -> loop.State:
  """The loop with its files: metrics every step, exact evaluations and checkpoints every so many."""
  training = config.training
  gradient = objectives.reverse_kl(setup.model, systems.training_target(config), training.path_gradient)
  evaluate = _evaluation(config, setup.model)
  progress = environment.Progress("training", training.num_steps, int(state.step))
  writer = metrics.Writer(pathlib.Path(config.output) / "training.jsonl", resume_step=int(state.step))
  clock = time.process_time() - writer.last("cpu_seconds", 0.0)
  steps = loop.train(
    state, gradient, setup.transformation, training.num_steps, training.batch, training.chunk,
    training.max_bad_steps, training.max_growth,
  )  # fmt: skip
  for state, result in steps:
    step, log_w = int(state.step), np.asarray(result.log_w)
    row = {
      "loss": float(-log_w.mean()),
      "ess": float(weights.ess(log_w)),
      "gradient_norm": float(result.gradient_norm),
      "skipped": int(state.skipped),
      "cpu_seconds": time.process_time() - clock,
    }
    if step % training.evaluate_every == 0 or step == training.num_steps:
      exact = evaluate(state.params)
      row |= {"exact_loss": float(-exact.mean()), "exact_ess": float(weights.ess(exact))}
    if distributed.is_first_process():
      writer.write(step, **row)
    if step % training.checkpoint_every == 0 or step == training.num_steps:
      saver.save(step, state)
    shown = " ".join(f"{k} {row[k]:.4g}" for k in ("loss", "ess", "exact_ess") if k in row)
    progress.update(step, shown + (f" skipped {row['skipped']}" if row["skipped"] else ""))
  return state


def _evaluation(config: presets.Experiment, model):
  """params -> log weights with the exact determinant, always on the same random numbers."""

  def one(params: Params, key: jax.Array) -> jax.Array:
    sample = model.sample(params, key)
    action = gauge.wilson(sample.u, config.theory.beta)
    return systems.log_det(config.theory, sample.u) - action - sample.log_q

  mapped = distributed.parallel_map(one, config.training.chunk, num_shared=1)
  key = jax.random.fold_in(jax.random.key(config.seed), 2)
  keys = distributed.item_keys(key, 0, 0, config.training.num_evaluate)
  return lambda params: np.asarray(mapped(params, keys))


def _curve(folder: pathlib.Path) -> None:
  rows = metrics.read(folder / "training.jsonl")
  exact = rows.get("exact_ess", np.full(len(rows["step"]), np.nan))
  figure = figures.training_curve(rows["step"], rows["loss"], rows["ess"], rows["cpu_seconds"] / 60, exact)
  figure.savefig(folder / "training.png", dpi=150)


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
