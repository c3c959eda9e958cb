"""What a training step costs: `python -m experiments.profile_training --preset=paper --config.training.batch=8`.

Compiles and runs the gradient of one chunk on one device, and its parts by themselves, and prints a table; stores nothing.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from flowqcd import distributed
from flowqcd.flows import coupling
from flowqcd.models import priors
from flowqcd.runs import environment, settings, systems
from flowqcd.stages import train_conditional, train_marginal
from flowqcd.theory import dirac, pseudofermion, solvers
from flowqcd.training import objectives
from flowqcd.types import Array, Key, Params


class Cost(NamedTuple):
  """Of one compiled function. Seconds of compilation and of the fastest run; MiB that it needs beside its arguments."""

  compile: float
  run: float
  memory: float


def run(config: settings.Experiment) -> dict[str, Cost]:
  """Print and return the costs of a gradient of the marginal model, of its parts, and of one of the conditional model."""
  environment.start(config)
  # What was compiled before would look as if it cost nothing.
  jax.config.update("jax_enable_compilation_cache", False)
  size, setup = min(config.training.batch, config.training.chunk), train_marginal.prepare(config)
  params, root = setup.state.params, jax.random.key(config.seed)
  keys = distributed.item_keys(root, 0, 0, size)
  gradient = objectives.reverse_kl(setup.model, systems.training_target(config), config.training.path_gradient)
  costs = {"gradient of the loss": measure(jax.vmap(gradient, (None, 0)), params, keys)}
  dtype = systems.dtype(config.training.precision)
  links = jax.vmap(priors.haar(config.theory.nc, config.theory.lattice, dtype).sample)(keys)
  operations = {"gradient of the loss": 0.0}
  if config.theory.num_flavours:
    target = systems.training_target(config)
    costs["determinant"] = measure(jax.vmap(jax.grad(target.gradient, 1)), keys, links)
    operations["determinant"] = size * _determinant_operations(config, links[0])
  if config.marginal == "spectral":
    costs["convolutions"] = measure(_convolutions(config, size), params, keys)
    passes = 4 if config.coupling.remat else 3
    nets = coupling.networks(config.coupling, config.theory.nc, config.theory.lattice)
    operations["convolutions"] = passes * size * config.coupling.layers * sum(net.operations for net in nets)
  if config.is_joint:
    costs["gradient of the conditional model"] = _conditional(config, params, keys)
  _table(config, size, params, costs, operations)
  return costs


def _conditional(config: settings.Experiment, fixed: Params, keys: Key) -> Cost:
  """One draw of U and one of phi for each key."""
  training = config.conditional_training
  dtype = systems.dtype(training.precision)
  model = systems.conditional_model(config, training.precision, training.mu0)
  propose = train_conditional.proposals(config, systems.marginal_model(config, dtype))
  params = systems.in_precision(model.init(jax.random.key(config.seed)), dtype)
  environment.show(f"{sum(x.size for x in jax.tree.leaves(params))} parameters of the conditional model")
  gradient = jax.vmap(objectives.conditional_kl(propose, model), (None, 0, None))
  return measure(gradient, params, keys, systems.in_precision(fixed, dtype))


def measure(function: Callable[..., Any], *args: Any, repeat: int = 3) -> Cost:
  """Compile for these arguments and run `repeat` times."""
  start = time.monotonic()
  compiled = jax.jit(function).lower(*args).compile()
  compilation = time.monotonic() - start
  needed = compiled.memory_analysis()
  memory = (needed.temp_size_in_bytes + needed.output_size_in_bytes) / 2**20 if needed else float("nan")
  runs = []
  for _ in range(repeat):
    start = time.monotonic()
    jax.block_until_ready(compiled(*args))
    runs.append(time.monotonic() - start)
  return Cost(compilation, min(runs), memory)


def _convolutions(config: settings.Experiment, size: int) -> Callable[[Params, Key], Params]:
  """Gradients of all networks of a spectral marginal on random features, with the recomputation of the whole model."""
  nets = coupling.networks(config.coupling, config.theory.nc, config.theory.lattice)
  volume, real = _volume(config), jnp.dtype("float32" if config.training.precision == "single" else "float64")

  def loss(params: Params, key: Key) -> Array:
    x = jax.random.normal(key, (nets[-1].channels[0], volume), real)

    def layer(total: Array, layer_params: Params) -> tuple[Array, None]:
      # The input depends on the layers before, so that its gradient is needed, as in the model.
      each = (jnp.sum(net.apply(p, x[: net.channels[0]] + total) ** 2) for net, p in zip(nets, layer_params))
      return 1e-6 * sum(each), None

    step = jax.checkpoint(layer) if config.coupling.remat else layer
    return lax.scan(step, jnp.zeros((), real), params)[0]

  return jax.vmap(jax.grad(loss), (None, 0))


def _determinant_operations(config: settings.Experiment, u: Array) -> float:
  """Of the stochastic gradient at one configuration: CG and three more normal operators, counted by XLA."""
  theory, training = config.theory, config.training
  operator_of, parities = (dirac.schur, 2) if training.even_odd else (dirac.wilson, 1)
  eta = pseudofermion.gaussian(jax.random.key(0), u, parities)
  apply = lambda u, eta: dirac.normal(operator_of(u, theory.kappa, theory.boundary), training.mu0).apply(eta)
  solve = jax.jit(lambda u, eta: solvers.cg(lambda x: apply(u, x), eta).iterations)
  analysis = jax.jit(apply).lower(u, eta).compile().cost_analysis()
  return training.num_noise * (int(solve(u, eta)) + 4) * analysis["flops"]


def _volume(config: settings.Experiment) -> int:
  volume = 1
  for extent in config.theory.lattice:
    volume *= extent
  return volume


def _table(config: settings.Experiment, size: int, params: Params, costs: dict[str, Cost], operations: dict) -> None:
  count = sum(x.size for x in jax.tree.leaves(params))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  environment.show(
    f"{count} parameters, {size} configurations at once, {jax.devices()[0].device_kind}, {config.training.precision}"
  )
  environment.show(f"peak memory of the process: {peak:.0f} MiB\n")
  environment.show("| part | compile, s | run, s | memory, MiB | GF/s |\n|---|---|---|---|---|")
  for name, cost in costs.items():
    rate = f"{operations[name] / cost.run / 1e9:.1f}" if operations.get(name) else ""
    environment.show(f"| {name} | {cost.compile:.1f} | {cost.run:.3f} | {cost.memory:.0f} | {rate} |")
  rest = costs["gradient of the loss"].run - sum(
    costs[name].run for name in ("determinant", "convolutions") if name in costs
  )
  environment.show(f"| the rest of the loss | | {rest:.3f} | | |")
