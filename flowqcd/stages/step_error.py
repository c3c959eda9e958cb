"""What integrators' steps do to weights, measured on a few samples before many are drawn."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed
from flowqcd.mcmc import hmc
from flowqcd.models import marginal
from flowqcd.runs import marginals, theories
from flowqcd.runs.folder import Run
from flowqcd.runs.theories import Theory
from flowqcd.types import Action, Array, FlowResult, Kernel, Key, Params

_NUM_CHECKED = 16
_MOST_DEVIATION = 0.01
"""What the step error may do to ln w between samples; their weights are wrong by as much."""

Path = Callable[[Array, Array, Array], FlowResult]
"""(u, old coupling, new one) -> the links carried along a fitted flow between couplings, in one step."""


def check_flow(run: Run, theory: Theory, links: marginals.Choice, params: Params, chunk: int) -> None:
  """Compare ln w with that of a flow of twice the steps, quarks to leading order; kept in flow_steps.json.

  A training whose flow is too coarse gains from the step error itself, so that only this tells good weights from bad.
  Raises ValueError if the difference varies by more than 0.01; its mean is an error of ln Z. Flows without steps pass.
  """
  name, finer = "flow_steps.json", marginals.finer(links)
  if finer is None or run.record(name) is not None:
    return
  models = [marginals.model(choice, theory, run.dtype) for choice in (links, finer)]

  def log_w(model: marginal.Marginal, params: Params, key: Key) -> Array:
    sample = model.sample(params, key)
    return -theories.leading_action(theory, sample.u) - sample.log_q

  def difference(params: Params, key: Key) -> Array:
    coarse, fine = (log_w(model, params, key) for model in models)
    return coarse - fine

  found = distributed.parallel_map(difference, chunk, num_shared=1)(params, _keys(run, 3))
  _conclude(run, name, found, f"flow.steps = {links.settings.steps} is", "raise flow.steps and train anew")


def check_path(
  run: Run,
  start: marginal.Marginal,
  path: Path,
  couplings: np.ndarray,
  action_at: Callable[[Array], Action],
  kernel_at: Callable[[Array], Kernel],
  params: Params,
  chunk: int,
) -> None:
  """The same for the flows between stages of annealing, one step each, summed over all stages; kept in path_steps.json."""
  name = "path_steps.json"
  if run.record(name) is not None:
    return

  def difference(params: Params, key: Key) -> Array:
    first, second = jax.random.split(key)
    u = start.sample(params, first).u

    def stage(carry: tuple[Array, Array], item: tuple[Key, Array, Array]) -> tuple[tuple[Array, Array], None]:
      (u, total), (key, old, new) = carry, item
      ends = _in_one_step_and_in_two(path, u, old, new)
      one, two = ends.logdet - jax.lax.map(lambda point: action_at(new).value(point, ()), ends.point)
      state = kernel_at(new).step(key, hmc.State(ends.point[0])).state
      return (state.u, total + one - two), None

    at = jnp.asarray(couplings, u.real.dtype)
    items = (jax.random.split(second, len(couplings) - 1), at[:-1], at[1:])
    return jax.lax.scan(stage, (u, jnp.zeros((), u.real.dtype)), items)[0][1]

  found = distributed.parallel_map(difference, chunk, num_shared=1)(params, _keys(run, 12))
  _conclude(run, name, found, f"annealing.stages = {len(couplings) - 1} are", "raise annealing.stages")


def _in_one_step_and_in_two(path: Path, u: Array, old: Array, new: Array) -> FlowResult:
  """The end of one step from old to new, and that of two half as long, stacked."""
  middle = (old + new) / 2

  # Three steps by one loop: the program holds the flow once, which is most of its compilation.
  def step(carry: FlowResult, item: tuple[Array, Array, Array]) -> tuple[FlowResult, FlowResult]:
    is_first, start, stop = item
    before = jax.tree.map(lambda first, last: jnp.where(is_first, first, last), begin, carry)
    end = path(before.point, start, stop)
    end = FlowResult(end.point, before.logdet + end.logdet)
    return end, end

  begin = FlowResult(u, jnp.zeros((), u.real.dtype))
  items = jnp.array([True, True, False]), jnp.stack([old, old, middle]), jnp.stack([new, middle, new])
  _, ends = jax.lax.scan(step, begin, items)
  return jax.tree.map(lambda x: x[jnp.array([0, 2])], ends)


def _keys(run: Run, salt: int) -> Key:
  """Those of the first samples."""
  return distributed.item_keys(run.key(salt), 0, 0, _NUM_CHECKED)


def _conclude(run: Run, name: str, difference: np.ndarray, what: str, remedy: str) -> None:
  deviation = float(np.std(difference))
  # Not "deviation > ...", which NaN would pass.
  if not deviation < _MOST_DEVIATION:
    raise ValueError(
      f"{what} too coarse: half the step moves ln w by {deviation:.2g} between samples, and at most {_MOST_DEVIATION} is "
      f"allowed; {remedy}"
    )
  found = {"num_configurations": len(difference), "deviation": deviation, "shift": float(np.mean(difference))}
  run.write(name, found)
