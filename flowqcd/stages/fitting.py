"""A training run with its files: metrics every step, evaluations and checkpoints every so many, progress, a figure."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import hosts
from flowqcd.analysis import weights
from flowqcd.io import files, metrics
from flowqcd.models import zoo
from flowqcd.runs import progress, stopping
from flowqcd.runs.folder import require_growth
from flowqcd.training import loop
from flowqcd.types import Params

if TYPE_CHECKING:
  from flowqcd.io import checkpoint


def starting(source: str, folder: str, state: loop.State) -> Params:
  """Parameters to start from, of the state's model: of a published model, by name or file, or of a run's checkpoints.

  folder: of the checkpoints, within the run's. Raises ValueError where there are none or they are of another model.
  """
  found = hosts.on_first(lambda: _read(source, folder, state))
  return hosts.from_first(state.params if found is None else found)


def _read(source: str, folder: str, state: loop.State) -> Params:
  if source not in zoo.names() and not source.endswith(".safetensors"):
    from flowqcd.io import checkpoint  # orbax is slow to import, and only needed where something was trained

    return checkpoint.read(pathlib.Path(source) / folder, "params", state.params)
  params, wanted = zoo.load(source).params, state.params
  shapes = lambda tree: [(jax.tree_util.keystr(path), np.shape(x)) for path, x in jax.tree.leaves_with_path(tree)]
  if shapes(params) != shapes(wanted):
    raise ValueError(f"'{source}' has not the parameters of the configured model: {zoo.load(source).card.description}")
  return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), params, wanted)


class Phase(NamedTuple):
  """A stretch of training with one batch, up to this step."""

  until: int
  batch: int


class Limits(NamedTuple):
  """Steps whose gradient exceeds max_growth times the usual norm are skipped, and max_bad_steps in a row end training."""

  max_growth: float
  max_bad_steps: int


class Task(NamedTuple):
  """What is trained and how. step: as of loop.make_step. evaluate: params -> log weights of fixed samples.

  name: of progress lines and of `<name>.jsonl` and `<name>.png`. folder: of checkpoints, within the run's. setting: that
  says how many steps there are.
  """

  name: str
  folder: str
  setting: str
  step: Callable[[loop.State, int], tuple[loop.State, loop.Metrics]]
  phases: tuple[Phase, ...]
  evaluate: Callable[[Params], np.ndarray]
  evaluate_every: int
  checkpoint_every: int
  keep: int
  max_bad_steps: int


def run(task: Task, folder: pathlib.Path, state: loop.State) -> Params:
  """Train, or go on training, from where the folder's checkpoints stand; every process of a multi-host run takes part.

  Raises ValueError where checkpoints are not of this model or beyond the last step, Diverged where training cannot go on,
  Stopped where a signal has come, with a checkpoint of the step before.
  """
  from flowqcd.io import checkpoint  # orbax is slow to import, and only needed where something was trained

  # On several hosts the first process alone has files.
  saver = hosts.on_first(lambda: checkpoint.Checkpointer(folder / task.folder, keep=task.keep))

  def restored() -> loop.State:
    assert saver is not None
    if saver.latest_step() is None:
      return state
    found = saver.restore(state)
    require_growth(task.setting, task.phases[-1].until, int(found.step), f"{folder / task.folder}")
    progress.say(f"{task.name}: resumed at step {int(found.step)}")
    return found

  # Processes that read other checkpoints, on disks of their own or late ones, would train on with wrong gradients.
  found = hosts.on_first(restored)
  start = hosts.from_first(state if found is None else found)
  if int(start.step) < task.phases[-1].until:
    # Drawn anew at the end, also where a kill comes before.
    hosts.on_first(lambda: (folder / f"{task.name}.png").unlink(missing_ok=True))
  state = _steps(task, folder, start, saver)
  if saver is not None:
    saver.close()
  hosts.on_first(lambda: _curve(folder, task.name))
  return state.params


def _steps(task: Task, folder: pathlib.Path, state: loop.State, saver: checkpoint.Checkpointer | None) -> loop.State:
  last = task.phases[-1].until
  shown = progress.Progress(task.name, last, int(state.step))
  log = folder / f"{task.name}.jsonl"
  writer = hosts.on_first(lambda: metrics.Writer(log, resume_step=int(state.step)))
  clock = time.process_time() - (writer.last("cpu_seconds", 0.0) if writer else 0.0)
  for phase in task.phases:
    start = state
    for state, result in loop.train(start, task.step, phase.until, phase.batch, task.max_bad_steps):
      step, log_w = int(state.step), np.asarray(result.log_w).ravel()
      row = {
        "loss": float(-log_w.mean()),
        "ess": float(weights.ess(log_w)),
        "gradient_norm": float(result.gradient_norm),
        "skipped": int(state.skipped),
        "cpu_seconds": hosts.summed(time.process_time() - clock),
      }
      if result.draw_variance is not None:
        row["draw_variance"] = float(np.mean(result.draw_variance))
      if step % task.evaluate_every == 0 or step == last:
        exact = task.evaluate(state.params)
        row |= {"exact_loss": float(-exact.mean()), "exact_ess": float(weights.ess(exact))}
      if writer is not None:
        writer.write(step, **row)
      stop = stopping.requested()
      if step % task.checkpoint_every == 0 or step == last or stop:
        hosts.on_first(functools.partial(_save, saver, step, state))
      if stop:
        raise stopping.Stopped(f"stopped by a signal after step {step}")
      note = " ".join(f"{k} {row[k]:.4g}" for k in ("loss", "draw_variance", "ess", "exact_ess") if k in row)
      note += f" skipped {row['skipped']}" if row["skipped"] else ""
      # A second question in a step, and a signal between the two, would stop it without a checkpoint.
      shown.update(step, note, may_stop=False)
  return state


def _save(saver: checkpoint.Checkpointer | None, step: int, state: loop.State) -> None:
  assert saver is not None
  saver.save(step, state)


def _curve(folder: pathlib.Path, name: str) -> None:
  path = folder / f"{name}.png"
  if path.exists():
    return
  from flowqcd.analysis import figures  # matplotlib is slow to import, and only needed here

  rows = metrics.read(folder / f"{name}.jsonl")
  exact = rows.get("exact_ess", np.full(len(rows["step"]), np.nan))
  figure = figures.training_curve(rows["step"], rows["loss"], rows["ess"], rows["cpu_seconds"] / 60, exact)
  with files.atomic(path) as handle:
    figure.savefig(handle, format="png", dpi=150)
