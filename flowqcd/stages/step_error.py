"""What integrators' steps do to weights, measured on a few samples before many are drawn."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed
from flowqcd.flows import trivializing
from flowqcd.io import metrics
from flowqcd.mcmc import hmc
from flowqcd.models import marginal
from flowqcd.runs import settings, systems
from flowqcd.types import Action, Array, Kernel, Key, Params

_NUM_CHECKED = 16
_MOST_DEVIATION = 0.01
"""What the step error may do to ln w between samples; their weights are wrong by as much."""


def check_flow(config: settings.Experiment, params: Params, folder: pathlib.Path) -> None:
  """Compare ln w with that of a flow of twice the steps, quarks to leading order; kept in flow_steps.json.

  A training whose flow is too coarse gains from the step error itself, so that only this tells good weights from bad.
  Raises ValueError if the difference varies by more than 0.01; its mean is an error of ln Z. Spectral flows have no steps.
  """
  record = folder / "flow_steps.json"
  if config.marginal != "trivializing" or record.exists():
    return
  dtype, target = systems.dtype(config.precision), systems.flow_target(config.theory)
  finer = dataclasses.replace(config, flow=dataclasses.replace(config.flow, steps=2 * config.flow.steps))
  models = [systems.marginal_model(c, dtype) for c in (config, finer)]

  def log_w(model: marginal.Marginal, params: Params, key: Key) -> Array:
    sample = model.sample(params, key)
    return -trivializing.target_action(target, sample.u) - sample.log_q

  def difference(params: Params, key: Key) -> Array:
    coarse, fine = (log_w(model, params, key) for model in models)
    return coarse - fine

  found = distributed.parallel_map(difference, config.sampling.chunk, num_shared=1)(params, _keys(config, 3))
  _conclude(found, record, f"flow.steps = {config.flow.steps} is", "raise flow.steps and train anew")


def check_path(
  config: settings.Experiment,
  start: marginal.Marginal,
  coefficients: np.ndarray,
  couplings: np.ndarray,
  action_at: Callable[[Array], Action],
  kernel_at: Callable[[Array], Kernel],
  params: Params,
  folder: pathlib.Path,
) -> None:
  """The same for the flows between stages of annealing, one step each, summed over all stages; kept in path_steps.json."""
  record = folder / "path_steps.json"
  if record.exists():
    return
  path = lambda steps: trivializing.path(coefficients, config.theory.lattice, steps, config.annealing.loops)
  coarse, fine = path(1), path(2)

  def difference(params: Params, key: Key) -> Array:
    first, second = jax.random.split(key)
    u = start.sample(params, first).u

    def stage(carry: tuple[Array, Array], item: tuple[Key, Array, Array]) -> tuple[tuple[Array, Array], None]:
      (u, total), (key, old, new) = carry, item
      one, two = coarse(u, old, new), fine(u, old, new)
      gain = lambda end: end.logdet - action_at(new).value(end.point, ())
      state = kernel_at(new).step(key, hmc.State(one.point)).state
      return (state.u, total + gain(one) - gain(two)), None

    at = jnp.asarray(couplings, u.real.dtype)
    items = (jax.random.split(second, len(couplings) - 1), at[:-1], at[1:])
    return jax.lax.scan(stage, (u, jnp.zeros((), u.real.dtype)), items)[0][1]

  found = distributed.parallel_map(difference, config.sampling.chunk, num_shared=1)(params, _keys(config, 12))
  _conclude(found, record, f"annealing.stages = {config.annealing.stages} are", "raise annealing.stages")


def _keys(config: settings.Experiment, stream: int) -> Key:
  """Those of the first samples."""
  return distributed.item_keys(jax.random.fold_in(jax.random.key(config.seed), stream), 0, 0, _NUM_CHECKED)


def _conclude(difference: np.ndarray, record: pathlib.Path, what: str, remedy: str) -> None:
  deviation = float(np.std(difference))
  # Not "deviation > ...", which NaN would pass.
  if not deviation < _MOST_DEVIATION:
    raise ValueError(
      f"{what} too coarse: half the step moves ln w by {deviation:.2g} between samples, and at most {_MOST_DEVIATION} is "
      f"allowed; {remedy}"
    )
  found = {"num_configurations": len(difference), "deviation": deviation, "shift": float(np.mean(difference))}
  metrics.write_json(record, found)
