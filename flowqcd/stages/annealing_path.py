"""The fitted flow between the couplings of annealing."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd import distributed, hosts
from flowqcd.mcmc import hmc
from flowqcd.models import priors
from flowqcd.runs.folder import Run
from flowqcd.runs.progress import Progress
from flowqcd.stages.annealing import Course
from flowqcd.training import continuity
from flowqcd.types import Array, Key

_LEAST_ACCEPTED = 0.1


def fit(run: Run, course: Course, chunk: int) -> continuity.Fit:
  """The flow along the course, from path.json where it is. chunk: streams that run together on a device."""
  numbers = run.record("path.json")
  if numbers is None:
    couplings = np.linspace(*course.ends, course.plan.nodes)
    clock = time.process_time()
    found = continuity.fit(couplings, _pilot(run, course, couplings, chunk), course.plan.degree)
    numbers = {name: x.tolist() for name, x in found._asdict().items()}
    run.write("path.json", numbers | {"cpu_seconds": hosts.summed(time.process_time() - clock)})
    # As it stands there, on all processes: their own fits may differ in the last digits.
    numbers = run.record("path.json")
    assert numbers is not None
  return continuity.Fit(*(np.array(numbers[name]) for name in continuity.Fit._fields))


def _pilot(run: Run, course: Course, couplings: np.ndarray, chunk: int) -> continuity.Terms:
  """Terms [n, streams * used trajectories] of streams that go from one coupling to the next.

  Raises ValueError where HMC hardly accepts a trajectory: its links would be those of another coupling.
  """
  plan, theory, root = course.plan, course.end, run.key(13)
  used = plan.trajectories - plan.trajectories // 2

  def at_coupling(beta: Array, u: Array, key: Key) -> tuple[Array, tuple[continuity.Terms, Array]]:
    kernel = course.kernel_at(beta)

    measure = lambda u: continuity.terms(u, beta, plan.loops, course.lines_at(beta))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure, u))

    # One loop over all moves: the program holds the kernel once.
    def move(u: Array, item: tuple[Key, Array]) -> tuple[Array, tuple[continuity.Terms, Array]]:
      key, is_used = item
      moved = kernel.step(key, hmc.State(u))
      u = moved.state.u
      return u, (jax.lax.cond(is_used, measure, lambda _: nothing, u), course.accepted(moved.info))

    items = (jax.random.split(key, plan.trajectories), jnp.arange(plan.trajectories) >= plan.trajectories - used)
    u, found = jax.lax.scan(move, u, items)
    return u, jax.tree.map(lambda x: x[-used:], found)

  advance = distributed.parallel_map(at_coupling, chunk, num_shared=1)
  u = jax.jit(jax.vmap(priors.haar(theory.nc, theory.lattice, run.dtype).sample))(
    distributed.item_keys(root, 0, 0, plan.streams)
  )
  progress, found = Progress("fitting a path (couplings)", len(couplings)), []
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
