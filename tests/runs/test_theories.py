"""The table of gauge actions and the twisted mass, and what a run does with them."""

import dataclasses

import jax
import numpy as np
import pytest
from fields import links

from flowqcd import commands, experiment, presets
from flowqcd.analysis import statistics, weights
from flowqcd.flows import trivializing
from flowqcd.io import metrics
from flowqcd.runs import conditionals, gauge_actions, theories, trajectories
from flowqcd.runs.families import Family
from flowqcd.runs.priors import Prior
from flowqcd.stages import annealing, chains, compare_chains, measure, publish, report, targets
from flowqcd.stages.annealing import Annealing
from flowqcd.theory import determinant, dirac, gauge, observables, pseudofermion

C1 = {"wilson": 0.0, "symanzik": -1 / 12, "iwasaki": -0.331, "dbw2": -1.4088}
SMOKE = presets.PRESETS["smoke"]
PURE = dataclasses.replace(SMOKE.theory, num_flavours=0)


def _with(theory, **changes):
  return dataclasses.replace(theory, **changes)


@pytest.mark.parametrize("name", gauge_actions.KINDS)
def test_every_action_is_the_same_wherever_a_run_has_it(name):
  theory, u = _with(PURE, gauge_action=name, beta=1.7), links(1, (4, 4))
  expected = gauge.improved(u, 1.7, C1[name])
  target = targets.target(theory, SMOKE.training)
  hmc = trajectories.action(theory, SMOKE.hmc, "double")
  fields = hmc.refresh(jax.random.key(0), u).fields
  found = theories.gauge_value(theory, u), theories.leading_action(theory, u), target.value(u), hmc.value(u, fields)
  np.testing.assert_allclose([*found, target.gradient(jax.random.key(0), u)], expected, rtol=1e-12)
  # The force of HMC is single precision's.
  np.testing.assert_allclose(hmc.force(u, fields), gauge.improved_force(u, 1.7, C1[name]), atol=1e-5)
  quarks = _with(theory, num_flavours=2)
  hopping = trivializing.two_flavours(0.0, theory.kappa, 1, theory.lattice, theory.boundary)
  both = expected + trivializing.target_action(hopping, u)
  np.testing.assert_allclose(theories.leading_action(quarks, u), both, rtol=1e-12)
  assert theories.flow_target(theory).beta == pytest.approx((1 - 8 * C1[name]) * 1.7)
  assert f"{name} action" in report.title(theory)


def test_a_run_without_the_fields_has_the_wilson_action_and_no_twist(tmp_path):
  config = dataclasses.replace(SMOKE, output=str(tmp_path / "run"))
  run = experiment.claim(config)
  run.store("hmc").append({"x": np.zeros(1)})
  record = run.folder / "config.json"
  found = metrics.read_json(record)
  assert (found.pop("theory.gauge_action"), found.pop("theory.twisted_mass")) == ("wilson", 0.0)
  metrics.write_json(record, found)
  experiment.claim(config)
  with pytest.raises(ValueError, match=r"theory.gauge_action: wilson there, iwasaki here"):
    experiment.claim(dataclasses.replace(config, theory=_with(config.theory, gauge_action="iwasaki")))


def test_flow_annealing_and_hmc_agree_on_an_improved_action(tmp_path):
  theory = _with(PURE, gauge_action="iwasaki", beta=0.3)
  config = dataclasses.replace(
    SMOKE,
    theory=theory,
    flow=dataclasses.replace(SMOKE.flow, steps=4),
    training=dataclasses.replace(SMOKE.training, num_steps=0),
    sampling=dataclasses.replace(SMOKE.sampling, num_samples=1024, batch=1024, num_haar=256),
    annealing=Annealing(start_beta=0.15, stages=8, moves="hmc", transport=False),
    hmc=dataclasses.replace(SMOKE.hmc, streams=16, trajectories=300, tau=2.0, steps=6),
    output=str(tmp_path / "run"),
  )
  flow, annealed = commands.sample(config), commands.anneal(config)
  u, log_w, log_q = (flow.read(name) for name in ("u", "log_w", "log_q"))
  expected = jax.vmap(lambda u: -gauge.improved(u, 0.3, -0.331))(u) - log_q
  np.testing.assert_allclose(log_w, expected, rtol=1e-10, atol=1e-10)
  plaquette = jax.vmap(lambda u: -gauge.wilson(u, 1.0) / 16)(u)
  known = statistics.chain_mean(chains.steps(commands.run_hmc(config), "plaquette"))
  of_flow = weights.reweighted_mean_jackknife(log_w, np.asarray(plaquette))
  close = lambda x, dx: abs(x - known.value) < 4 * np.hypot(dx, known.error) and dx < 0.01
  assert close(of_flow.value, of_flow.error)
  assert close(annealed["mean_plaquette"], annealed["mean_plaquette_err"])
  assert annealed["ess"] > 0.5


def test_what_is_for_plaquettes_alone_names_the_action_and_what_else_there_is():
  theory = _with(PURE, gauge_action="dbw2")
  words = lambda remedy: f"for plaquettes alone, theory.gauge_action = wilson, not for dbw2; {remedy}"
  course = lambda theory, **plan: annealing.course(theory, Annealing(**plan), SMOKE.hmc)
  with pytest.raises(ValueError, match=words("set annealing.moves = hmc")):
    course(theory)
  with pytest.raises(ValueError, match=words("set annealing.transport = false")):
    course(theory, moves="hmc")
  with pytest.raises(ValueError, match=words("set theory.num_flavours = 0")):
    course(_with(theory, num_flavours=2), moves="hmc", transport=False)
  with pytest.raises(ValueError, match=words("set prior.beta = 0")):
    dataclasses.replace(SMOKE, theory=theory, prior=Prior(1.0))
  with pytest.raises(ValueError, match=words("set family.betas")):
    natural = dataclasses.replace(SMOKE.training, method="natural", determinant="none")
    dataclasses.replace(SMOKE, theory=theory, family=Family((1.0,)), training=natural)
  with pytest.raises(ValueError, match=words("there is `flowqcd run_hmc`")):
    compare_chains.check(_with(theory, nc=3), dataclasses.replace(SMOKE.hmc, trajectories=5000))
  with pytest.raises(ValueError, match=words("the run's checkpoints")):
    publish.check(theory)
  with pytest.raises(
    ValueError, match="theory.gauge_action must be wilson, .*, dbw2 or PACKAGE.MODULE:NAME, not 'luscher'"
  ):
    _with(theory, gauge_action="luscher")


TWISTED = _with(SMOKE.theory, twisted_mass=0.3)


def test_quarks_have_the_same_twisted_mass_wherever_a_run_has_them():
  """In weights, HMC, training targets and their noise vectors: det(D D^dag + mu^2)."""
  u, other = links(1, (4, 4)), links(1, (4, 4), 1)
  at = lambda u: determinant.log_det_regulated(u, TWISTED.kappa, TWISTED.boundary, 0.09)
  np.testing.assert_allclose(theories.log_det(TWISTED, u), at(u), rtol=1e-11)
  exact = dataclasses.replace(SMOKE.training, determinant="exact", mu0=0.0)
  target = targets.target(TWISTED, exact)
  expected = gauge.wilson(u, TWISTED.beta) - at(u)
  np.testing.assert_allclose([target.value(u), target.gradient(None, u)], expected, rtol=1e-11)
  for even_odd in (True, False):
    operator_of, parities, mu0 = targets.noisy(TWISTED, dataclasses.replace(exact, even_odd=even_odd))
    matrix = determinant.dense(dirac.normal(operator_of(u), mu0).apply, (2, 1, 16 // parities), u.dtype)
    np.testing.assert_allclose(np.linalg.slogdet(matrix)[1], at(u), rtol=1e-11)
  action = trajectories.action(TWISTED, SMOKE.hmc, "double")
  of_quarks = pseudofermion.even_odd(TWISTED.kappa, TWISTED.boundary, twisted_mass=0.3)
  fields = action.refresh(jax.random.key(0), u).fields
  expected = gauge.wilson(other, TWISTED.beta) + of_quarks.value(other, fields[1])
  np.testing.assert_allclose(action.value(other, fields), expected, rtol=1e-10)
  assert report.title(TWISTED).endswith("N_f = 2, kappa = 0.15, twisted mass 0.3")


@pytest.mark.parametrize("even_odd", [True, False])
def test_pseudofermions_that_are_modelled_have_the_twisted_action(even_odd):
  """phi^dag (A A^dag)^{-1} phi with the A whose determinant weights have, by the dense matrix."""
  choice = dataclasses.replace(SMOKE.conditional, kind="ptcn", even_odd=even_odd)
  u, training = links(1, (4, 4)), dataclasses.replace(SMOKE.training, even_odd=even_odd, mu0=0.0)
  operator_of, parities, mu0 = targets.noisy(TWISTED, training)
  matrix = determinant.dense(dirac.normal(operator_of(u), mu0).apply, (2, 1, 16 // parities), u.dtype)
  for regulator in (0.0, 1e-9):
    model = conditionals.model(choice, TWISTED, "double", regulator)
    phi, _, action = model.draw(jax.jit(model.init)(jax.random.key(0)), u, jax.random.key(1))
    phi = np.asarray(phi[0]).ravel()
    np.testing.assert_allclose(action, np.vdot(phi, np.linalg.solve(matrix, phi)).real, rtol=1e-6)


def test_what_has_no_twisted_mass_says_so(tmp_path):
  of = lambda **changes: dataclasses.replace(SMOKE, theory=TWISTED, output=str(tmp_path / "run"), **changes)
  choose = lambda **changes: dataclasses.replace(SMOKE.conditional, **changes)
  with pytest.raises(
    ValueError, match="kind = both: for theory.twisted_mass = 0, not 0.3; set conditional.kind = ptcn"
  ):
    of()
  with pytest.raises(ValueError, match="set conditional.hasenbusch_mass = 0"):
    of(conditional=choose(kind="ptcn", hasenbusch_mass=0.4))
  plain = choose(kind="none")
  with pytest.raises(ValueError, match="set hmc.hasenbusch_mass = 0"):
    of(conditional=plain, hmc=dataclasses.replace(SMOKE.hmc, hasenbusch_mass=0.4))
  with pytest.raises(ValueError, match="set family.betas"):
    natural = dataclasses.replace(SMOKE.training, method="natural", determinant="none")
    of(conditional=plain, family=Family((1.0,), (0.1,)), training=natural)
  with pytest.raises(ValueError, match="published models: for theory.twisted_mass = 0"):
    publish.check(TWISTED)
  with pytest.raises(ValueError, match=r"not 3: there are no 2\+1 flavours and no clover term"):
    _with(TWISTED, num_flavours=3)
  with pytest.raises(ValueError, match="theory.twisted_mass must be .* not negative, not -0.1"):
    _with(TWISTED, twisted_mass=-0.1)
  assert not (tmp_path / "run").exists()


def test_what_is_measured_has_the_pion_of_twisted_quarks():
  u, plan = links(1, (4, 4)), dataclasses.replace(SMOKE.measurement, flow_time=0.1)
  found = jax.jit(lambda u: measure.observables_of(TWISTED, plan, u)["pion"])(u)
  pion = lambda mu: observables.pion_correlator(u, TWISTED.kappa, TWISTED.boundary, twisted_mass=mu)
  np.testing.assert_allclose(found, pion(0.3), rtol=1e-9)
  assert np.abs(np.asarray(found) / np.asarray(pion(0.0)) - 1).max() > 0.01
