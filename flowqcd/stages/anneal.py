"""Annealed importance sampling from a flow to a stronger coupling."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed, hosts
from flowqcd.analysis import trust, weights
from flowqcd.flows import trivializing
from flowqcd.io import ensembles, files, metrics
from flowqcd.mcmc import annealing
from flowqcd.models import marginal
from flowqcd.runs import folder, marginals, progress, theories
from flowqcd.runs.folder import Run
from flowqcd.stages import annealing_path, costs, step_error
from flowqcd.stages.annealing import Course
from flowqcd.stages.sample import Sampling
from flowqcd.theory import observables
from flowqcd.training import continuity
from flowqcd.types import Array, Key, Params


def run(run: Run, course: Course, links: marginals.Choice, params: Params, sampling: Sampling) -> dict[str, Any]:
  """Fill the ensemble `annealed` up to num_samples and return what annealed.json says of it.

  A flow for the theory at the course's start, with these parameters, then the plan's stages of moves at couplings up to
  the last, and between them steps along a flow that is fitted before, to other samples: its coefficients stay in
  path.json. ESS, ln Z and the plaquette are of the last theory, exact for any number of stages whose flows are fine
  enough; log_z_step_shift is what half their steps change ln Z by.

  With quarks the stages have their leading hopping terms, and the last weight, log_w, the exact determinant in their place;
  log_w_path is the one before. ess_start and ess_path are of the hopping terms then: what the last weight spreads, no
  stages take back, and a start flow is best one trained with training.determinant = none. Raises ValueError where flows
  are too coarse.
  """
  store = run.store("annealed")
  model = marginals.model(links, course.start, run.dtype)
  step_error.check_flow(run, course.start, links, params, sampling.chunk)
  sampler = _sampler(course, model, *_stages(run, course, model, params, sampling.chunk))
  draw = distributed.parallel_map(sampler, sampling.chunk, num_shared=1)
  key, total, done = run.key(12), sampling.num_samples, len(store)
  folder.require_growth("sampling.num_samples", total, done, str(store.path))
  shown = progress.Progress("annealed samples", total, done)
  log_w = store.read("log_w") if done else np.empty(0)
  while done < total:
    count, clock = min(sampling.batch, total - done), time.process_time()
    batch = jax.device_get(draw(params, distributed.item_keys(key, 0, done, count)))
    if not np.isfinite(batch["log_w"]).all():
      raise ValueError(f"samples {done} to {done + count}: log_w not finite")
    store.append(batch, {"cpu_seconds": hosts.summed(time.process_time() - clock)})
    done += count
    log_w = np.append(log_w, batch["log_w"])
    shown.update(done, f"ess {float(weights.ess(log_w)):.4f}")
  return hosts.shared(lambda: _conclude(run.folder, course.plan.moves, store))


def _stages(
  run: Run, course: Course, model: marginal.Marginal, params: Params, chunk: int
) -> tuple[np.ndarray, Callable | None]:
  """Couplings of the stages, and the flow between them, after a check of all its steps; None where there shall be none."""
  plan = course.plan
  if not plan.transport:
    return np.linspace(*course.ends, plan.stages + 1), None
  fit = annealing_path.fit(run, course, chunk)
  couplings = continuity.schedule(np.linspace(*course.ends, plan.nodes), fit.residual, plan.stages)
  path = trivializing.path(fit.coefficients, course.end.lattice, shapes=plan.loops)
  step_error.check_path(run, model, path, couplings, course.action_at, course.kernel_at, params, chunk)
  return couplings, path


def _sampler(
  course: Course, model: marginal.Marginal, couplings: np.ndarray, transport: Callable | None
) -> Callable[[Params, Key], dict[str, Array]]:
  """One sample and its weights."""
  theory = course.end
  anneal = annealing.make(course.action_at, couplings, course.kernel_at, transport)
  first_action, last_action = (course.action_at(coupling) for coupling in course.ends)

  def one(params: Params, key: Key) -> dict[str, Array]:
    first, second = jax.random.split(key)
    sample = model.sample(params, first)
    log_w = -first_action.value(sample.u, ()) - sample.log_q
    end = anneal(second, sample.u, log_w)
    exact = theories.log_det(theory, end.u) - theories.gauge_value(theory, end.u)
    return {
      "u": end.u,
      "log_w": end.log_w + (last_action.value(end.u, ()) + exact if theory.num_flavours else 0.0),
      "log_w_path": end.log_w,
      "log_w_start": log_w,
      "acceptance": jnp.mean(course.accepted(end.info), dtype=end.log_w.dtype),
      "mean_plaquette": observables.mean_plaquette(end.u),
    }

  return one


def _conclude(where: pathlib.Path, moves: str, store: ensembles.Ensemble) -> dict[str, Any]:
  log_w, cost = store.read("log_w"), costs.of(store)
  ess, log_z = float(weights.ess(log_w)), weights.log_z(log_w)
  plaquette = weights.reweighted_mean_jackknife(log_w, store.read("mean_plaquette"))
  acceptance = float(store.read("acceptance").mean())
  records = [where / name for name in ("flow_steps.json", "path_steps.json")]
  shift = -sum(metrics.read_json(record)["shift"] for record in records if record.exists())
  warnings = [*weights.diagnose(log_w).messages, *trust.of_weights(log_w), *trust.of_ess(log_w)]
  if moves == "hmc" and acceptance < 0.5:
    warnings.append(f"HMC accepts only {acceptance:.2g} of its trajectories; raise hmc.steps or lower hmc.tau")
  if abs(shift) > float(log_z.error):
    warnings.append(f"half the step moves ln Z by {shift:.2g}, more than its error; raise flow.steps or stages")
  numbers = {
    "num_samples": len(log_w),
    "ess": ess,
    "ess_err": weights.ess_error(log_w),
    "ess_start": float(weights.ess(store.read("log_w_start"))),
    "ess_path": float(weights.ess(store.read("log_w_path"))),
    "log_z": float(log_z.value),
    "log_z_err": float(log_z.error),
    "log_z_step_shift": shift,
    "mean_plaquette": float(plaquette.value),
    "mean_plaquette_err": float(plaquette.error),
    "acceptance": acceptance,
    "weight_warnings": warnings,
    "cpu_seconds": cost.total,
    "cpu_seconds_per_effective_sample": cost.steady / (len(log_w) * ess),
  }
  metrics.write_json(where / "annealed.json", numbers)
  from flowqcd.analysis import figures  # matplotlib is slow to import, and only needed here

  with files.atomic(where / "annealed.png", overwrite=True) as handle:
    figures.log_weight_histogram(log_w).savefig(handle, format="png")
  progress.say(
    f"{where / 'annealed.json'}: ess {ess:.4f} ({numbers['ess_start']:.4f} at the start, "
    f"{numbers['ess_path']:.4f} of the path), ln Z {numbers['log_z']:.4f} +- "
    f"{numbers['log_z_err']:.4f}, plaquette {numbers['mean_plaquette']:.5f} +- {numbers['mean_plaquette_err']:.5f}"
  )
  for text in warnings:
    progress.say(f"warning: {text}")
  return numbers
