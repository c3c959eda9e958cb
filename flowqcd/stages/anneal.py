"""Annealed importance sampling from a flow to a stronger coupling: `python -m experiments.anneal --preset=su3_4d ...`."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed
from flowqcd.analysis import trust, weights
from flowqcd.flows import trivializing
from flowqcd.io import ensembles, files, metrics
from flowqcd.mcmc import annealing, heatbath, hmc, link_flow
from flowqcd.models import priors
from flowqcd.runs import environment, settings, systems
from flowqcd.stages import step_error, summary, train_marginal
from flowqcd.theory import gauge, observables
from flowqcd.training import continuity
from flowqcd.types import Action, Array, Kernel, Key, Params


def run(config: settings.Experiment) -> dict[str, Any]:
  """Fill the ensemble `annealed` up to sampling.num_samples and return what annealed.json says of it.

  A flow for annealing.start_beta and start_kappa, its parameters those of training.start_from or the analytic ones, then
  annealing.stages moves at couplings up to theory.beta, and between them steps along a flow that is fitted
  before, to other samples: its coefficients stay in path.json. ESS, ln Z and the plaquette are of theory.beta, exact
  for any number of stages whose flows are fine enough; log_z_step_shift is what half their steps change ln Z by.

  With quarks the stages have their leading hopping terms, and the last weight, log_w, the exact determinant in their place;
  log_w_path is the one before. ess_start and ess_path are of the hopping terms then: what the last weight spreads, no
  stages take back, and a start flow is best one trained with training.determinant = none. Raises ValueError where flows
  are too coarse, and for moves by sweeps with quarks or odd extents, and of the link flow for groups other than SU(3).
  """
  start = _start(config)
  _check_moves(config)
  environment.start(config)
  folder = environment.claim(config)
  params = train_marginal.prepare(start).state.params
  store = environment.store(config, folder / "annealed")
  draw = distributed.parallel_map(_sampler(config, start, params, folder), config.sampling.chunk, num_shared=1)
  key, total, done = jax.random.fold_in(jax.random.key(config.seed), 12), config.sampling.num_samples, len(store)
  progress = environment.Progress("annealed samples", total, done)
  while done < total:
    count, clock = min(config.sampling.batch, total - done), time.process_time()
    batch = jax.device_get(draw(params, distributed.item_keys(key, 0, done, count)))
    if not np.isfinite(batch["log_w"]).all():
      raise ValueError(f"samples {done} to {done + count}: log_w not finite")
    store.append(batch, {"cpu_seconds": time.process_time() - clock})
    done += count
    progress.update(done, f"ess {float(weights.ess(store.read('log_w'))):.4f}")
  return _conclude(config, folder, store)


def _check_moves(config: settings.Experiment) -> None:
  moves, theory = config.annealing.moves, config.theory
  if moves == "hmc":
    return
  if theory.num_flavours:
    raise ValueError(f"{moves} moves are for plaquettes alone; with quarks set annealing.moves = hmc")
  if any(n % 2 for n in theory.lattice):
    raise ValueError(f"{moves} moves need even extents, not {theory.lattice}; set annealing.moves = hmc")
  if moves == "link_flow" and theory.nc != 3:
    raise ValueError(f"link_flow moves are for SU(3), not for nc = {theory.nc}; set annealing.moves = heatbath")


def _start(config: settings.Experiment) -> settings.Experiment:
  """The configuration of the flow at the start. Raises ValueError for quarks there alone, and a path of no length."""
  plan, theory = config.annealing, config.theory
  if plan.start_kappa and not theory.num_flavours:
    raise ValueError("annealing.start_kappa needs a theory with quarks")
  quarks = {"num_flavours": 2, "kappa": plan.start_kappa} if plan.start_kappa else {"num_flavours": 0}
  start = dataclasses.replace(config, theory=dataclasses.replace(theory, beta=plan.start_beta, **quarks))
  first, last = _ends(config, start)
  if first == last:
    raise ValueError(f"annealing needs another coupling at its end than at its start, {first}")
  return start


def _lines_at(config: settings.Experiment) -> Callable[[Array], continuity.Lines]:
  """coupling of the plaquettes -> the quarks' winding lines, which go with it in proportion from start to end."""
  start = _start(config)
  (s0, s1), ends = _ends(config, start), [systems.flow_target(c.theory).lines for c in (start, config)]
  if not any(ends[1]):
    return lambda beta: continuity.Lines()
  rate = tuple((last - first) / (s1 - s0) for first, last in zip(*ends))
  return lambda beta: continuity.Lines(tuple(x + r * (beta - s0) for x, r in zip(ends[0], rate)), rate)


def _action_at(config: settings.Experiment) -> Callable[[Array], Action]:
  """coupling of the plaquettes -> the action of a stage."""
  lines_at = _lines_at(config)
  return lambda beta: gauge.action(beta, lines_at(beta).at)


def _kernel_at(config: settings.Experiment) -> Callable[[Array], Kernel]:
  """coupling -> the moves there."""
  plan, run, action_at = config.annealing, config.hmc, _action_at(config)
  if plan.moves == "heatbath":
    return lambda beta: heatbath.make(beta, plan.overrelaxation)
  if plan.moves == "link_flow":
    return lambda beta: link_flow.make(beta, plan.reflections, plan.overrelaxation)
  return lambda beta: hmc.make(action_at(beta), run.tau, run.steps, systems.INTEGRATORS[run.integrator])


def _ends(config: settings.Experiment, start: settings.Experiment) -> tuple[float, float]:
  """The first and the last coupling of plaquettes, those of the quarks' hopping terms included."""
  return systems.flow_target(start.theory).beta, systems.flow_target(config.theory).beta


def _path(config: settings.Experiment, ends: tuple[float, float], folder: pathlib.Path) -> continuity.Fit | None:
  """The fitted flow between couplings, from path.json where it is; None where there shall be none."""
  plan, record = config.annealing, folder / "path.json"
  if not plan.transport:
    return None
  if not record.exists():
    couplings = np.linspace(*ends, plan.nodes)
    clock = time.process_time()
    found = continuity.fit(couplings, _pilot(config, couplings), plan.degree)
    numbers = {name: x.tolist() for name, x in found._asdict().items()}
    metrics.write_json(record, numbers | {"cpu_seconds": time.process_time() - clock})
  numbers = metrics.read_json(record)
  return continuity.Fit(*(np.array(numbers[name]) for name in continuity.Fit._fields))


_LEAST_ACCEPTED = 0.1


def _accepted(config: settings.Experiment, info: Any) -> Array:
  """Which moves were accepted, or how many of their links; a heat bath accepts all."""
  of_moves = {"hmc": lambda: info.accepted, "link_flow": lambda: info.probability, "heatbath": lambda: jnp.ones(())}
  return of_moves[config.annealing.moves]()


def _pilot(config: settings.Experiment, couplings: np.ndarray) -> continuity.Terms:
  """Terms [n, streams * used trajectories] of streams that go from one coupling to the next.

  Raises ValueError where HMC hardly accepts a trajectory: its links would be those of another coupling.
  """
  plan, theory = config.annealing, config.theory
  root = jax.random.fold_in(jax.random.key(config.seed), 13)
  used, lines_at = plan.trajectories - plan.trajectories // 2, _lines_at(config)

  def at_coupling(beta: Array, u: Array, key: Key) -> tuple[Array, tuple[continuity.Terms, Array]]:
    kernel = _kernel_at(config)(beta)

    def move(u: Array, key: Key) -> tuple[Array, Array]:
      moved = kernel.step(key, hmc.State(u))
      return moved.state.u, _accepted(config, moved.info)

    def measured(u: Array, key: Key) -> tuple[Array, tuple[continuity.Terms, Array]]:
      u, accepted = move(u, key)
      return u, (continuity.terms(u, beta, plan.loops, lines_at(beta)), accepted)

    split = jax.random.split(key, plan.trajectories)
    u, _ = jax.lax.scan(move, u, split[:-used])
    return jax.lax.scan(measured, u, split[-used:])

  advance = distributed.parallel_map(at_coupling, config.sampling.chunk, num_shared=1)
  u = jax.jit(jax.vmap(priors.haar(theory.nc, theory.lattice, systems.dtype(config.precision)).sample))(
    distributed.item_keys(root, 0, 0, plan.streams)
  )
  progress, found = environment.Progress("fitting a path (couplings)", len(couplings)), []
  for index, beta in enumerate(couplings):
    keys = distributed.item_keys(root, index + 1, 0, plan.streams)
    u, (measured, accepted) = advance(jnp.asarray(beta, u.real.dtype), u, keys)
    # Not "mean < ...", which NaN would pass.
    if plan.moves == "hmc" and not np.mean(accepted) >= _LEAST_ACCEPTED:
      raise ValueError(
        f"HMC accepts only {np.mean(accepted):.2g} of its trajectories at beta = {beta:.3g}; raise hmc.steps or lower "
        "hmc.tau"
      )
    found.append(jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), measured))
    progress.update(index + 1)
  return continuity.Terms(*(np.stack(x) for x in zip(*found)))


def _sampler(
  config: settings.Experiment, start: settings.Experiment, params: Params, folder: pathlib.Path
) -> Callable[[Params, Key], dict[str, Array]]:
  """One sample and its weights, after a check of all steps."""
  model, plan = systems.marginal_model(start, systems.dtype(config.precision)), config.annealing
  step_error.check_flow(start, params, folder)
  ends, action_at, kernel_at = _ends(config, start), _action_at(config), _kernel_at(config)
  path = _path(config, ends, folder)
  if path is None:
    couplings, transport = np.linspace(*ends, plan.stages + 1), None
  else:
    couplings = continuity.schedule(np.linspace(*ends, plan.nodes), path.residual, plan.stages)
    step_error.check_path(config, model, path.coefficients, couplings, action_at, kernel_at, params, folder)
    transport = trivializing.path(path.coefficients, config.theory.lattice, shapes=plan.loops)
  anneal = annealing.make(action_at, couplings, kernel_at, transport)
  first_action, last_action = (action_at(coupling) for coupling in ends)

  def one(params: Params, key: Key) -> dict[str, Array]:
    first, second = jax.random.split(key)
    sample = model.sample(params, first)
    log_w = -first_action.value(sample.u, ()) - sample.log_q
    end = anneal(second, sample.u, log_w)
    exact = systems.log_det(config.theory, end.u) - gauge.wilson(end.u, config.theory.beta)
    return {
      "u": end.u,
      "log_w": end.log_w + (last_action.value(end.u, ()) + exact if config.theory.num_flavours else 0.0),
      "log_w_path": end.log_w,
      "log_w_start": log_w,
      "acceptance": jnp.mean(_accepted(config, end.info), dtype=end.log_w.dtype),
      "mean_plaquette": observables.mean_plaquette(end.u),
    }

  return one


def _conclude(config: settings.Experiment, folder: pathlib.Path, store: ensembles.Ensemble) -> dict[str, Any]:
  log_w, clock = store.read("log_w"), store.attributes("cpu_seconds")
  ess, log_z = float(weights.ess(log_w)), weights.log_z(log_w)
  plaquette = weights.reweighted_mean_jackknife(log_w, store.read("mean_plaquette"))
  acceptance = float(store.read("acceptance").mean())
  records = [folder / name for name in ("flow_steps.json", "path_steps.json")]
  shift = -sum(metrics.read_json(record)["shift"] for record in records if record.exists())
  warnings = [*weights.diagnose(log_w).messages, *trust.of_weights(log_w), *trust.of_ess(log_w)]
  if config.annealing.moves == "hmc" and acceptance < 0.5:
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
    "cpu_seconds": float(clock.sum()),
    "cpu_seconds_per_effective_sample": summary.steady(clock) / (len(log_w) * ess),
  }
  metrics.write_json(folder / "annealed.json", numbers)
  from flowqcd.analysis import figures  # matplotlib is slow to import, and only needed here

  with files.atomic(folder / "annealed.png", overwrite=True) as handle:
    figures.log_weight_histogram(log_w).savefig(handle, format="png")
  environment.say(
    f"{folder / 'annealed.json'}: ess {ess:.4f} ({numbers['ess_start']:.4f} at the start, "
    f"{numbers['ess_path']:.4f} of the path), ln Z {numbers['log_z']:.4f} +- "
    f"{numbers['log_z_err']:.4f}, plaquette {numbers['mean_plaquette']:.5f} +- {numbers['mean_plaquette_err']:.5f}"
  )
  for text in warnings:
    environment.say(f"warning: {text}")
  return numbers
