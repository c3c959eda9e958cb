"""Residual flows and families through the binaries, on theories with exact results."""

import dataclasses

import jax
import numpy as np
import pytest
from fields import links

from flowqcd import commands, presets
from flowqcd.analysis import weights
from flowqcd.experiment import Experiment
from flowqcd.flows import family
from flowqcd.models import zoo
from flowqcd.runs.families import Family
from flowqcd.stages import targets
from flowqcd.stages.sample import Sampling
from flowqcd.theory import torus


def _config(folder, beta, **changes):
  base = presets.PRESETS["su3_4d"]
  return dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, nc=2, lattice=(4, 4), boundary=(-1.0, 1.0), beta=beta),
    flow=dataclasses.replace(base.flow, steps=2),
    training=dataclasses.replace(base.training, num_steps=2, batch=128, chunk=32, num_evaluate=64),
    sampling=Sampling(num_samples=1024, batch=512, chunk=64, num_haar=0),
    output=str(folder),
    **changes,
  )


def _check(store, beta, least):
  log_w, exact = store.read("log_w"), torus.exact(2, beta, 16)
  assert weights.ess(log_w) > least
  w = np.exp(log_w - log_w.max())
  log_z = np.log(w.mean()) + log_w.max()
  assert abs(log_z - exact.log_z) < 4 * w.std() / w.mean() / len(w) ** 0.5


def test_a_residual_flow(tmp_path):
  config = _config(tmp_path / "run", 1.6, marginal="residual")
  config = dataclasses.replace(config, residual=dataclasses.replace(config.residual, sweeps=1))
  untrained = dataclasses.replace(
    config, training=dataclasses.replace(config.training, num_steps=0), output=str(tmp_path / "untrained")
  )
  before = weights.ess(commands.sample(untrained).read("log_w"))
  store = commands.sample(config)
  assert weights.ess(store.read("log_w")) > before + 0.2
  _check(store, 1.6, 0.78)


def test_a_family_is_sampled_at_other_couplings_than_it_was_trained_at(tmp_path):
  both = Family(betas=(1.0, 2.4), order=2)
  config = _config(tmp_path / "run", 2.4, family=both)
  _check(commands.sample(config), 2.4, 0.9)
  commands.publish(config)
  model = zoo.load(tmp_path / "run" / "model.safetensors")
  assert model.card.family == {"reference_beta": 2.4, "reference_kappa": 0.0, "order": 2}
  assert "(1, 0), (2.4, 0)" in model.card.description
  other = dataclasses.replace(
    _config(tmp_path / "other", 1.8, family=both),
    training=dataclasses.replace(config.training, num_steps=0, start_from=str(tmp_path / "run")),
  )
  store = commands.sample(other)
  _check(store, 1.8, 0.95)
  # The published flow, on links that the binary has drawn, for couplings that may be traced.
  at = jax.jit(lambda beta, u: model.flow(couplings=family.Couplings(beta)).inverse(model.params, u).logdet)
  haar = store.read("log_q")[0]
  assert float(at(1.8, store.read("u")[0])) == pytest.approx(float(haar), abs=2e-3)


def test_bad_input():
  with pytest.raises(ValueError, match="as many as family.betas"):
    Family(betas=(1.0, 2.0), kappas=(0.1,))
  with pytest.raises(ValueError, match="needs marginal = trivializing"):
    Experiment(marginal="spectral", family=Family(betas=(1.0,), kappas=(0.1,)))
  with pytest.raises(ValueError, match="kappas where the theory has quarks"):
    Experiment(family=Family(betas=(1.0,)))
  with pytest.raises(ValueError, match="does not fit width 2"):
    Experiment(marginal="residual", theory=dataclasses.replace(presets.PRESETS["su3_4d"].theory, lattice=(5, 4, 4, 4)))


@pytest.mark.parametrize("determinant", ["exact", "none"])
def test_the_target_of_a_family_is_that_of_each_coupling(determinant):
  """log w of the family's model at traced couplings against that of the binaries' own for this theory."""
  base = presets.PRESETS["smoke"]
  theory = dataclasses.replace(base.theory, nc=2, beta=1.3, kappa=0.12)
  training = dataclasses.replace(base.training, method="natural", determinant=determinant, mu0=0.0)
  config = dataclasses.replace(base, theory=theory, training=training, family=Family((1.0, 1.3), (0.1, 0.12)))
  u = links(2, (4, 4))
  at = targets.family_at(theory, config.links, determinant, u.dtype)
  found = jax.jit(lambda beta, kappa: at(family.Couplings(beta, kappa))[1].value(u))
  np.testing.assert_allclose(found(1.3, 0.12), targets.target(theory, training).value(u), rtol=1e-12)
