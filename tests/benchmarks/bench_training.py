"""Gradients of the paper's two models, complex64; `flowqcd profile_training` splits them into parts."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from benchmarks.conftest import Target

from flowqcd import distributed, presets
from flowqcd.flows import coupling, ptcn
from flowqcd.runs import conditionals, marginals, session
from flowqcd.stages import targets, train_conditional, train_marginal
from flowqcd.training import objectives

PAPER = presets.PRESETS["paper"]


def test_marginal_gradient_compiles(kernel):
  """48 layers, eight configurations; operations of direct convolutions alone, with one recomputation."""
  size = 8
  config = dataclasses.replace(PAPER, training=dataclasses.replace(PAPER.training, batch=size, chunk=size))
  setup = train_marginal.prepare(config.seed, config.theory, config.links, config.training, config.optimizer)
  gradient = objectives.reverse_kl(
    setup.model, targets.target(config.theory, config.training), config.training.path_gradient
  )
  nets = coupling.networks(config.coupling, config.theory.nc, config.theory.lattice)
  operations = 4 * config.coupling.layers * sum(net.operations for net in nets)
  keys = distributed.item_keys(jax.random.key(0), 0, 0, size)
  kernel(gradient, setup.state.params, keys, items=size, operations=operations, target=Target("compile s", 60))


@pytest.mark.parametrize("path", [False, True], ids=["score", "path"])
@pytest.mark.parametrize("draws", [1, 8])
def test_conditional_gradient_compiles(kernel, draws, path):
  """36 layers of six hops at one configuration of the trivializing flow; three times the operations of the hops forward."""
  config = dataclasses.replace(PAPER, marginal="trivializing")
  training = config.conditional_training
  model = conditionals.model(config.conditional, config.theory, training.precision, training.mu0)
  links = marginals.model(config.links, config.theory, jnp.dtype("complex64"))
  propose = train_conditional.proposals(config.theory, links)
  params, fixed = (session.in_precision(m.init(jax.random.key(0)), jnp.complex64) for m in (model, links))
  run = objectives.conditional_kl(propose, model, draws, path)
  kernel(
    run, params, distributed.item_keys(jax.random.key(0), 0, 0, 1), fixed, items=draws,
    operations=3 * ptcn.operations(config.conditional.ptcn, 3, config.theory.lattice), target=Target("compile s", 60),
  )  # fmt: skip
