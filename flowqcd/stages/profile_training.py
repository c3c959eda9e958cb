"""What a training step costs: the gradient of one chunk on one device, and its parts by themselves."""

from __future__ import annotations

import math
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
from flowqcd.runs import conditionals, marginals, progress, session
from flowqcd.runs.conditionals import Conditional
from flowqcd.runs.theories import Theory
from flowqcd.stages import targets, train_conditional, train_marginal
from flowqcd.stages.train_conditional import ConditionalTraining
from flowqcd.stages.training import Training
from flowqcd.theory import dirac, pseudofermion, solvers
from flowqcd.training import objectives, optimizer
from flowqcd.types import Array, Key, Params


class Cost(NamedTuple):
  """Of one compiled function. Seconds of compilation and of the fastest run; MiB that it needs beside its arguments."""

  compile: float
  run: float
  memory: float


def run(
  seed: int,
  theory: Theory,
  links: marginals.Choice,
  training: Training,
  adam: optimizer.Config,
  choice: Conditional,
  conditional_training: ConditionalTraining,
) -> dict[str, Cost]:
  """Print and return the costs of a gradient of the marginal model, of its parts, and of one of the conditional model."""
  # What was compiled before would look as if it cost nothing.
  jax.config.update("jax_enable_compilation_cache", False)
  setup, size = train_marginal.prepare(seed, theory, links, training, adam), min(training.batch, training.chunk)
  params, keys = setup.state.params, distributed.item_keys(jax.random.key(seed), 0, 0, size)
  target = targets.target(theory, training)
  gradient = objectives.reverse_kl(setup.model, target, training.path_gradient)
  costs, operations = {"gradient of the loss": measure(gradient, params, keys)}, {}
  if theory.num_flavours:
    u = jax.vmap(priors.haar(theory.nc, theory.lattice, session.dtype(training.precision)).sample)(keys)
    costs["determinant"] = measure(jax.vmap(jax.grad(target.gradient, 1)), keys, u)
    operations["determinant"] = size * _determinant_operations(theory, training, u[0])
  if isinstance(links.settings, coupling.Config):
    costs["convolutions"] = measure(_convolutions(theory, links.settings, training.precision), params, keys)
    operations["convolutions"] = size * _convolution_operations(theory, links.settings)
  if conditionals.has_model(choice, theory):
    propose = lambda dtype: train_conditional.proposals(theory, marginals.model(links, theory, dtype))
    cost = _conditional(seed, theory, propose, choice, conditional_training, params, keys)
    costs["gradient of the conditional model"] = cost
  _table(training.precision, size, params, costs, operations)
  return costs


def _conditional(
  seed: int,
  theory: Theory,
  propose: Callable[[jnp.dtype], train_conditional.Propose],
  choice: Conditional,
  training: ConditionalTraining,
  fixed: Params,
  keys: Key,
) -> Cost:
  """One draw of U and one of phi for each key. propose: of links of a type."""
  dtype = session.dtype(training.precision)
  model = conditionals.model(choice, theory, training.precision, training.mu0)
  params = session.in_precision(model.init(jax.random.key(seed)), dtype)
  progress.show(f"{sum(x.size for x in jax.tree.leaves(params))} parameters of the conditional model")
  gradient = objectives.conditional_kl(propose(dtype), model)
  return measure(gradient, params, keys, session.in_precision(fixed, dtype))


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


def _convolutions(theory: Theory, layers: coupling.Config, precision: str) -> Callable[[Params, Key], Params]:
  """Gradients of all networks of a spectral marginal on random features, with the recomputation of the whole model."""
  nets = coupling.networks(layers, theory.nc, theory.lattice)
  volume, real = math.prod(theory.lattice), jnp.finfo(session.dtype(precision)).dtype

  def loss(params: Params, key: Key) -> Array:
    x = jax.random.normal(key, (nets[-1].channels[0], volume), real)

    def layer(total: Array, layer_params: Params) -> tuple[Array, None]:
      # The input depends on the layers before, so that its gradient is needed, as in the model.
      each = (jnp.sum(net.apply(p, x[: net.channels[0]] + total) ** 2) for net, p in zip(nets, layer_params))
      return 1e-6 * sum(each, jnp.zeros((), real)), None

    step = jax.checkpoint(layer) if layers.remat else layer
    return lax.scan(step, jnp.zeros((), real), params)[0]

  return jax.vmap(jax.grad(loss), (None, 0))


def _convolution_operations(theory: Theory, layers: coupling.Config) -> float:
  """Of the networks forward and backward, and once more where they are computed again, at one configuration."""
  nets = coupling.networks(layers, theory.nc, theory.lattice)
  return (4 if layers.remat else 3) * layers.layers * sum(net.operations for net in nets)


def _determinant_operations(theory: Theory, training: Training, u: Array) -> float:
  """Of the stochastic gradient at one configuration: CG and three more normal operators, as XLA counts, or 0."""
  operator_of, parities, mu0 = targets.noisy(theory, training)
  eta = pseudofermion.gaussian(jax.random.key(0), u, parities)
  apply = lambda u, eta: dirac.normal(operator_of(u), mu0).apply(eta)
  solve = jax.jit(lambda u, eta: solvers.cg(lambda x: apply(u, x), eta).iterations)
  analysis = jax.jit(apply).lower(u, eta).compile().cost_analysis() or {}
  return training.num_noise * (int(solve(u, eta)) + 4) * analysis.get("flops", 0.0)


def _table(precision: str, size: int, params: Params, costs: dict[str, Cost], operations: dict) -> None:
  count = sum(x.size for x in jax.tree.leaves(params))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  progress.show(f"{count} parameters, {size} configurations at once, {jax.devices()[0].device_kind}, {precision}")
  progress.show(f"peak memory of the process: {peak:.0f} MiB\n")
  progress.show("| part | compile, s | run, s | memory, MiB | GF/s |\n|---|---|---|---|---|")
  for name, cost in costs.items():
    rate = f"{operations[name] / cost.run / 1e9:.1f}" if operations.get(name) else ""
    progress.show(f"| {name} | {cost.compile:.1f} | {cost.run:.3f} | {cost.memory:.0f} | {rate} |")
  rest = costs["gradient of the loss"].run - sum(
    costs[name].run for name in ("determinant", "convolutions") if name in costs
  )
  progress.show(f"| the rest of the loss | | {rest:.3f} | | |")
