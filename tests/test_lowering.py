"""Every hot path becomes a program for GPUs and TPUs; compiling and running it needs the device."""

import dataclasses

import fields
import jax
import jax.numpy as jnp
import pytest

from flowqcd import presets
from flowqcd.mcmc import heatbath, hmc, link_flow
from flowqcd.runs import conditionals, marginals, session, theories, trajectories, tree
from flowqcd.stages import measure, targets, train_conditional, train_marginal
from flowqcd.theory import determinant
from flowqcd.training import objectives

PLATFORMS = ("cuda", "tpu")
PAPER = tree.override(
  presets.PRESETS["paper"],
  {
    "coupling.layers": "2", "coupling.remat": "false", "conditional.ptcn.layers": "2", "training.batch": "4",
    "training.chunk": "1", "conditional.draws": "2", "precision": "single",
  },
  "",
)  # fmt: skip
TRIVIALIZING = dataclasses.replace(PAPER, marginal="trivializing")
KEY = jax.random.key_data(jax.random.key(0))


def _links():
  return jnp.asarray(fields.links(3, (4, 4, 4, 4)), "complex64")


def _marginal(config):
  model = marginals.model(config.links, config.theory, jnp.dtype("complex64"))
  return model, session.in_precision(model.init(jax.random.key(0)), jnp.dtype("complex64"))


def _sample(config):
  model, params = _marginal(config)
  return lambda params, key: model.sample(params, key)[:2], (params, KEY)


def _marginal_gradient():
  setup = train_marginal.prepare(PAPER.seed, PAPER.theory, PAPER.links, PAPER.training, PAPER.optimizer)
  return objectives.reverse_kl(setup.model, targets.target(PAPER.theory, PAPER.training), True), (
    setup.state.params,
    KEY[None],
  )


def _conditional_gradient():
  training = TRIVIALIZING.conditional_training
  model = conditionals.model(TRIVIALIZING.conditional, PAPER.theory, training.precision, training.mu0)
  links, fixed = _marginal(TRIVIALIZING)
  params = session.in_precision(model.init(jax.random.key(0)), jnp.dtype("complex64"))
  gradient = objectives.conditional_kl(train_conditional.proposals(PAPER.theory, links), model, 1, True)
  return gradient, (params, KEY[None], fixed)


def _draws():
  config = presets.PRESETS["reproduce"]
  model = conditionals.model(config.conditional, config.theory, "single")
  params = session.in_precision(model.init(jax.random.key(0)), jnp.dtype("complex64"))
  return lambda params, u, key: model.at(params, u).draw(key), (params, _links(), KEY)


def _step(kernel):
  return lambda u, key: kernel.step(key, hmc.State(u)).state.u, (_links(), KEY)


PATHS = {
  "trivializing sample": lambda: _sample(TRIVIALIZING),
  "spectral sample": lambda: _sample(PAPER),
  "spectral gradient": _marginal_gradient,
  "conditional gradient": _conditional_gradient,
  "hopping draw": _draws,
  "hmc": lambda: _step(trajectories.kernel(PAPER.theory, PAPER.hmc, "single")),
  "heat bath": lambda: _step(heatbath.make(5.7, 1)),
  "link flow": lambda: _step(link_flow.make(5.7, 1)),
  "log weight": lambda: (
    lambda u: theories.log_det(PAPER.theory, u) - theories.gauge_value(PAPER.theory, u),
    (_links(),),
  ),
  "regulated determinant": lambda: (lambda u: determinant.log_det_regulated(u, 0.1, mu0=1e-5), (_links(),)),
  "observables": lambda: (lambda u: measure.observables_of(PAPER.theory, PAPER.measurement, u), (_links(),)),
}
SLOW = ("spectral gradient", "conditional gradient")
"""Half a minute of tracing each."""


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x in SLOW)) for x in PATHS])
def test_hot_paths_lower_for_accelerators(name):
  function, arguments = PATHS[name]()
  exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
  assert set(exported.platforms) == set(PLATFORMS)
  # A path that computes nothing would become a program too.
  assert exported.mlir_module().count("stablehlo.") > 100
