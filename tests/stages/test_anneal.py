"""The annealing binary on a theory with exact results."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import slow

from flowqcd import commands, experiment, presets
from flowqcd.analysis import weights
from flowqcd.flows import trivializing
from flowqcd.io import ensembles
from flowqcd.mcmc import annealing, heatbath
from flowqcd.runs import marginals
from flowqcd.stages import step_error
from flowqcd.stages.annealing import Annealing
from flowqcd.stages.sample import Sampling
from flowqcd.theory import gauge, observables, torus


def _config(folder, nc=2):
  base = presets.PRESETS["su3_4d"]
  return dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, nc=nc, lattice=(4, 4), boundary=(-1.0, 1.0), beta=3.0),
    sampling=Sampling(num_samples=512, batch=128, chunk=32, num_haar=0),
    annealing=Annealing(start_beta=1.0, stages=4, nodes=4, streams=32, trajectories=8, degree=2),
    output=str(folder),
  )


def test_exact_results_and_going_on(tmp_path):
  config = _config(tmp_path / "run")
  found = commands.anneal(config)
  exact = torus.exact(2, 3.0, 16)
  assert found["ess"] > 0.8
  assert abs(found["log_z"] - exact.log_z) < 4 * found["log_z_err"] < 0.1
  assert abs(found["mean_plaquette"] - exact.plaquette) < 4 * found["mean_plaquette_err"] < 0.04
  # A run that lost its last parts goes on with the same path and ends the same.
  store = ensembles.Ensemble.open(tmp_path / "run" / "annealed")
  log_w = store.read("log_w")
  for part in sorted((tmp_path / "run" / "annealed").glob("*.h5"))[2:]:
    part.unlink()
  again = commands.anneal(config)
  np.testing.assert_array_equal(ensembles.Ensemble.open(tmp_path / "run" / "annealed").read("log_w"), log_w)
  assert again["ess"] == found["ess"]
  assert json.loads((tmp_path / "run" / "annealed.json").read_text())["ess"] == found["ess"]


def test_link_flow_moves_without_transport(tmp_path):
  base = _config(tmp_path / "run", nc=3)
  plan = dataclasses.replace(base.annealing, moves="link_flow", transport=False, stages=16)
  found = commands.anneal(dataclasses.replace(base, annealing=plan))
  exact = torus.exact(3, 3.0, 16)
  assert 0.5 < found["acceptance"] < 1 and found["ess"] > 0.5
  assert abs(found["log_z"] - exact.log_z) < 4 * found["log_z_err"] < 0.2
  assert abs(found["mean_plaquette"] - exact.plaquette) < 4 * found["mean_plaquette_err"] < 0.04


@pytest.mark.parametrize("start", [slow("haar"), "heavy"])
def test_quarks(tmp_path, start):
  """ln Z and plaquette with an exact determinant, from Haar links or from heavier quarks, against the flow alone."""
  base = _config(tmp_path)
  base = dataclasses.replace(
    base,
    theory=dataclasses.replace(base.theory, num_flavours=2, kappa=0.18, beta=2.0),
    flow=dataclasses.replace(base.flow, steps=3),
    training=dataclasses.replace(base.training, determinant="none", num_steps=0),
    hmc=dataclasses.replace(base.hmc, tau=1.0, steps=6),
  )
  plan = dataclasses.replace(base.annealing, start_beta=0.0, moves="hmc")
  flow = commands.sample(dataclasses.replace(base, output=str(tmp_path / "flow")))
  log_w = flow.read("log_w")
  log_z = weights.log_z(log_w)
  plaquettes = np.array([observables.mean_plaquette(u) for u in flow.read("u")])
  plaquette = weights.reweighted_mean(log_w, plaquettes)
  assert weights.ess(log_w) > 0.8
  if start == "heavy":
    plan = dataclasses.replace(plan, start_beta=1.0, start_kappa=0.12)
  found = commands.anneal(dataclasses.replace(base, annealing=plan, output=str(tmp_path / start)))
  assert found["ess"] > 0.8
  assert abs(found["log_z"] - log_z.value) < 4 * np.hypot(found["log_z_err"], log_z.error) < 0.15
  error = np.hypot(found["mean_plaquette_err"], plaquette.error)
  assert abs(found["mean_plaquette"] - plaquette.value) < 4 * error < 0.04
  # The hopping terms leave little to the last weight, and it is not nothing.
  store = ensembles.Ensemble.open(tmp_path / start / "annealed")
  last = store.read("log_w") - store.read("log_w_path")
  assert 0.01 < last.std() < 0.06


def test_steps_that_are_too_coarse_are_refused(tmp_path):
  """One stage to a strong field is one step of the fitted flow; nothing is drawn with weights that are wrong."""
  config = _config(tmp_path / "run", nc=1)
  config = dataclasses.replace(
    config,
    theory=dataclasses.replace(config.theory, beta=8.0),
    annealing=dataclasses.replace(config.annealing, start_beta=0.0, stages=1, loops=("ababABAB",)),
  )
  with pytest.raises(ValueError, match="annealing.stages = 1 are too coarse.*raise annealing.stages"):
    commands.anneal(config)
  assert not list((tmp_path / "run" / "annealed").glob("*.h5"))


def test_the_check_of_steps_is_what_weights_differ_by(tmp_path):
  """One stage of annealing from the same links, with one step of the flow and with two."""
  config, couplings = _config(tmp_path, nc=1), np.array([0.5, 2.0])
  coefficients, shapes = np.zeros((9, 2)), ("ababABAB",)
  coefficients[[0, 8], 0] = -1 / 32, 1e-3
  model = marginals.model(config.links, config.theory, jnp.complex128)
  params = model.init(jax.random.key(0))
  run, path = experiment.run(config), lambda steps: trivializing.path(coefficients, (4, 4), steps, shapes)
  step_error.check_path(run, model, path(1), couplings, gauge.action, heatbath.make, params, 16)
  found = json.loads((tmp_path / "path_steps.json").read_text())

  def log_w(key, steps):
    first, second = jax.random.split(key)
    stage = annealing.make(gauge.action, couplings, heatbath.make, path(steps))
    return stage(second, model.sample(params, first).u, 0.0).log_w

  keys = step_error._keys(run, 12)
  coarse, fine = (jax.jit(jax.vmap(lambda key, n=n: log_w(key, n)))(keys) for n in (1, 2))
  assert abs(found["shift"]) > 1e-8
  np.testing.assert_allclose(found["shift"], np.mean(coarse - fine), rtol=1e-5)
  np.testing.assert_allclose(found["deviation"], np.std(coarse - fine), rtol=1e-5)


def test_a_flow_that_is_too_coarse_is_refused(tmp_path):
  config = _config(tmp_path / "run")
  config = dataclasses.replace(
    config,
    theory=dataclasses.replace(config.theory, beta=8.0),
    flow=dataclasses.replace(config.flow, steps=1),
    training=dataclasses.replace(config.training, num_steps=0),
  )
  with pytest.raises(ValueError, match="flow.steps = 1 is too coarse.*raise flow.steps"):
    commands.sample(config)
  assert not (tmp_path / "run" / "flow").exists()


def test_moves_that_are_never_accepted_are_named(tmp_path):
  config = _config(tmp_path / "run")
  plan = dataclasses.replace(config.annealing, moves="hmc")
  config = dataclasses.replace(config, annealing=plan, hmc=dataclasses.replace(config.hmc, tau=40.0, steps=2))
  with pytest.raises(
    ValueError, match=r"accepts only 0\S* of its trajectories at beta = .*raise hmc.steps or lower hmc.tau"
  ):
    commands.anneal(config)
  assert not (tmp_path / "run" / "path.json").exists()


def test_bad_input(tmp_path):
  quarks = dataclasses.replace(presets.PRESETS["reproduce"], output=str(tmp_path / "run"))
  with pytest.raises(ValueError, match="plaquettes alone; with quarks set annealing.moves = hmc"):
    commands.anneal(quarks)
  odd = _config(tmp_path / "odd")
  for start, words in (
    ({"start_kappa": 0.1}, "start_kappa needs a theory with quarks"),
    ({"start_beta": 3.0}, "at its end"),
  ):
    with pytest.raises(ValueError, match=words):
      commands.anneal(dataclasses.replace(odd, annealing=dataclasses.replace(odd.annealing, **start)))
  with pytest.raises(ValueError, match=r"even extents, not \(5, 4\); set annealing.moves = hmc"):
    commands.anneal(dataclasses.replace(odd, theory=dataclasses.replace(odd.theory, lattice=(5, 4))))
  assert not (tmp_path / "odd").exists()
  with pytest.raises(ValueError, match="at least one stage"):
    Annealing(stages=0)
  sweeps = dataclasses.replace(odd.annealing, moves="link_flow")
  with pytest.raises(ValueError, match="link_flow moves are for SU\\(3\\), not for nc = 2"):
    commands.anneal(dataclasses.replace(odd, annealing=sweeps, theory=dataclasses.replace(odd.theory, nc=2)))
  with pytest.raises(ValueError, match="moves must be heatbath, link_flow or hmc"):
    Annealing(moves="langevin")
  with pytest.raises(ValueError, match="reflections and overrelaxation must not be negative"):
    Annealing(reflections=-1)
  with pytest.raises(ValueError, match="more nodes than its degree"):
    Annealing(nodes=3, degree=3)
