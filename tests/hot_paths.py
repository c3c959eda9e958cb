"""What runs hot, on one configuration of 4^4: for checks of what compilers and devices make of it."""

import fields
import jax
import jax.numpy as jnp

from flowqcd import presets
from flowqcd.mcmc import heatbath, hmc, link_flow
from flowqcd.runs import conditionals, marginals, session, theories, trajectories, tree
from flowqcd.stages import measure, targets, train_conditional, train_marginal
from flowqcd.theory import determinant
from flowqcd.training import objectives

LATTICE = (4, 4, 4, 4)
KEY = jax.random.key_data(jax.random.key(0))


def paper(precision, marginal="spectral"):
  """The paper's settings, with two layers of each network."""
  changes = {
    "coupling.layers": "2", "coupling.remat": "false", "conditional.ptcn.layers": "2", "training.batch": "4",
    "training.chunk": "1", "conditional.draws": "2", "training.precision": precision,
    "conditional_training.precision": precision, "precision": precision, "marginal": marginal,
  }  # fmt: skip
  return tree.override(presets.PRESETS["paper"], changes, "")


def links(precision):
  """Haar-random, the same on every machine."""
  return jnp.asarray(fields.haar_in_numpy(LATTICE, 3), session.dtype(precision))


def _marginal(config):
  dtype = session.dtype(config.precision)
  model = marginals.model(config.links, config.theory, dtype)
  return model, session.in_precision(model.init(jax.random.key(0)), dtype)


def _sample(marginal):
  def path(precision):
    model, params = _marginal(paper(precision, marginal))
    return lambda params, key: model.sample(params, key)[:2], (params, KEY)

  return path


def _marginal_gradient(precision):
  config = paper(precision)
  setup = train_marginal.prepare(config.seed, config.theory, config.links, config.training, config.optimizer)
  gradient = objectives.reverse_kl(setup.model, targets.target(config.theory, config.training), True)
  return gradient, (setup.state.params, KEY[None])


def _conditional_gradient(precision):
  config = paper(precision, "trivializing")
  training = config.conditional_training
  model = conditionals.model(config.conditional, config.theory, training.precision, training.mu0)
  proposing, fixed = _marginal(config)
  params = session.in_precision(model.init(jax.random.key(0)), session.dtype(precision))
  gradient = objectives.conditional_kl(train_conditional.proposals(config.theory, proposing), model, 1, True)
  return gradient, (params, KEY[None], fixed)


def _draw(precision):
  config = presets.PRESETS["reproduce"]
  model = conditionals.model(config.conditional, config.theory, precision)
  params = session.in_precision(model.init(jax.random.key(0)), session.dtype(precision))
  return lambda params, u, key: model.at(params, u).draw(key), (params, links(precision), KEY)


def _step(kernel_of):
  def path(precision):
    kernel = kernel_of(precision)
    return lambda u, key: kernel.step(key, hmc.State(u)).state.u, (links(precision), KEY)

  return path


def _of_links(function):
  return lambda precision: (function, (links(precision),))


_THEORY, _MEASUREMENT = presets.PRESETS["paper"].theory, presets.PRESETS["paper"].measurement
PATHS = {
  "trivializing sample": _sample("trivializing"),
  "spectral sample": _sample("spectral"),
  "spectral gradient": _marginal_gradient,
  "conditional gradient": _conditional_gradient,
  "hopping draw": _draw,
  "hmc": _step(lambda precision: trajectories.kernel(_THEORY, presets.PRESETS["paper"].hmc, precision)),
  "heat bath": _step(lambda _: heatbath.make(5.7, 1)),
  "link flow": _step(lambda _: link_flow.make(5.7, 1)),
  "log weight": _of_links(lambda u: theories.log_det(_THEORY, u) - theories.gauge_value(_THEORY, u)),
  "regulated determinant": _of_links(lambda u: determinant.log_det_regulated(u, 0.1, mu0=1e-5)),
  "observables": _of_links(lambda u: measure.observables_of(_THEORY, _MEASUREMENT, u)),
}
"""precision -> (function, arguments)."""
SLOW = ("spectral gradient", "conditional gradient")
"""Half a minute of tracing each."""
