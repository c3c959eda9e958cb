"""Train the marginal flow by reverse KL: `python -m experiments.train_marginal --config.training.num_steps=...`."""

from __future__ import annotations

import pathlib

import jax
import numpy as np

from experiments import configuration, environment, presets, systems
from flowqcd import distributed
from flowqcd.analysis import figures, weights
from flowqcd.io import checkpoint, metrics
from flowqcd.theory import gauge
from flowqcd.training import loop, objectives, optimizer
from flowqcd.types import Params


def run(config: presets.Experiment) -> Params:
  """Train, or go on training, and return the parameters; the analytic ones where num_steps is 0."""
  dtype = environment.start(config)
  folder = environment.claim(config)
  model = systems.marginal_model(config, dtype)
  root = jax.random.key(config.seed)
  params = model.init(jax.random.fold_in(root, 0))
  if not config.training.num_steps:
    return params
  transformation = optimizer.make(config.optimizer)
  state = loop.initial_state(jax.random.fold_in(root, 1), params, transformation)
  saver = checkpoint.Checkpointer(folder / "checkpoints", keep=config.training.keep)
  if saver.latest_step() is not None:
    state = saver.restore(state)
    environment.say(f"training: resumed at step {int(state.step)}")
  state = _train(config, folder, model, transformation, state, saver)
  saver.close()
  _curve(folder)
  return state.params


def _train(config, folder, model, transformation, state, saver) -> loop.State:
  """The loop with its files: metrics every step, exact evaluations and checkpoints every so many."""
  training = config.training
  gradient = objectives.reverse_kl(model, systems.training_target(config), training.path_gradient)
  evaluate = _evaluation(config, model)
  progress = environment.Progress("training", training.num_steps, int(state.step))
  writer = metrics.Writer(folder / "training.jsonl", resume_step=int(state.step))
  steps = loop.train(state, gradient, transformation, training.num_steps, training.batch, training.chunk)
  for state, result in steps:
    step = int(state.step)
    log_w = np.asarray(result.log_w)
    row = {
      "loss": float(-log_w.mean()),
      "ess": float(weights.ess(log_w)),
      "gradient_norm": float(result.gradient_norm),
      "skipped": int(state.skipped),
    }
    if step % training.evaluate_every == 0 or step == training.num_steps:
      exact = evaluate(state.params)
      row |= {"exact_loss": float(-exact.mean()), "exact_ess": float(weights.ess(exact))}
    writer.write(step, **row)
    if step % training.checkpoint_every == 0 or step == training.num_steps:
      saver.save(step, state)
    shown = " ".join(f"{k} {row[k]:.4g}" for k in ("loss", "ess", "exact_ess") if k in row)
    progress.update(step, shown)
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
  figure = figures.training_curve(rows["step"], rows["loss"], rows["ess"])
  figure.savefig(folder / "training.png", dpi=150)


def main() -> None:
  """Command line."""
  configuration.run(run, presets.PRESETS, "reproduce")


if __name__ == "__main__":
  main()
