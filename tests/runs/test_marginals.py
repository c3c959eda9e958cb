"""Tables of flows and priors, and flows of the user's own."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from fields import links

from flowqcd import commands, experiment, presets
from flowqcd.flows import trivializing
from flowqcd.io import metrics
from flowqcd.models import zoo
from flowqcd.runs import marginals, priors, theories
from flowqcd.runs.flows import custom

_MODULE = """
import pathlib
from flowqcd.flows import trivializing
from flowqcd.runs import theories

pathlib.Path(__file__).with_name("was_run").touch()

def make(theory):
  return trivializing.make(trivializing.Config(steps=1), theories.flow_target(theory), theory.nc, theory.lattice)

def wrong(theory):
  return theory
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """The folder of a module `own_flow`, which says when it was run."""
  (tmp_path / "own").mkdir()
  (tmp_path / "own" / "own_flow.py").write_text(_MODULE)
  monkeypatch.syspath_prepend(str(tmp_path / "own"))
  yield tmp_path / "own"
  sys.modules.pop("own_flow", None)


def _config(folder, **changes):
  return dataclasses.replace(presets.PRESETS["smoke"], output=str(folder), **changes)


@pytest.mark.parametrize("name", marginals.KINDS)
def test_every_kind_makes_its_flow(name):
  config = _config("nowhere", marginal=name)
  flow = marginals.flow(config.links, config.theory)
  u = links(1, (4, 4))
  end = flow.forward(flow.init(jax.random.key(0)), u)
  np.testing.assert_allclose(np.abs(end.point), 1.0, rtol=1e-12)
  assert (marginals.finer(config.links) is None) == (name != "trivializing")


def test_a_flow_of_the_users_own(own, tmp_path):
  config = _config(tmp_path / "run", marginal="own_flow:make")
  assert (own / "was_run").exists()
  theory = config.theory
  same = trivializing.make(trivializing.Config(steps=1), theories.flow_target(theory), theory.nc, theory.lattice)
  flow, u = marginals.flow(config.links, theory), links(1, (4, 4))
  params = flow.init(jax.random.key(0))
  np.testing.assert_array_equal(flow.forward(params, u).point, same.forward(params, u).point)
  run = experiment.claim(config)
  assert metrics.read_json(run.folder / "config.json")["marginal"] == "own_flow:make"
  with pytest.raises(ValueError, match="can be published"):
    commands.publish(config)


@pytest.mark.parametrize("name, words", [
  ("own_flow:nothing", "module own_flow has no function nothing"), ("no_such:make", "No module named 'no_such'"),
  (":make", "marginal = ':make'"), ("own_flow:", "has no function"), ("own_flow", "must be trivializing, spectral"),
])  # fmt: skip
def test_names_that_are_no_flow(own, name, words):
  with pytest.raises(ValueError, match=words):
    _config("nowhere", marginal=name)


def test_functions_that_make_no_flow_are_named(own):
  config = _config("nowhere", marginal="own_flow:wrong")
  with pytest.raises(ValueError, match="'own_flow:wrong' made Theory; it must return a flowqcd.types.Flow"):
    marginals.flow(config.links, config.theory)


def test_what_a_folder_or_a_card_says_is_never_run(own, tmp_path):
  run = experiment.claim(_config(tmp_path / "run"))
  run.store("flow").append({"x": np.zeros(1)})
  found = metrics.read_json(run.folder / "config.json")
  metrics.write_json(run.folder / "config.json", found | {"marginal": "own_flow:make"})
  with pytest.raises(ValueError, match="marginal: own_flow:make there, trivializing here"):
    experiment.claim(_config(tmp_path / "run"))
  with pytest.raises(ValueError, match="kind must be one of trivializing, .*, not 'own_flow:make'"):
    dataclasses.replace(zoo.load("su3-4d-beta2").card, kind="own_flow:make")
  assert not (own / "was_run").exists() and "own_flow" not in sys.modules
  assert custom.load("own_flow:make") and (own / "was_run").exists()


def test_priors_by_their_coupling():
  theory = presets.PRESETS["u1_2d"].theory
  assert [priors.Prior(beta).kind for beta in (0.0, 2.0)] == list(priors.KINDS) == ["haar", "heatbath"]
  u = [
    priors.make(priors.Prior(beta), theory, np.dtype("complex128")).sample(jax.random.key(0)) for beta in (0.0, 50.0)
  ]
  plaquettes = [float(np.mean(np.real(x[0, 0, 0] * np.roll(x[1, 0, 0], -1, 0)
                * np.conj(np.roll(x[0, 0, 0], -1, 1)) * np.conj(x[1, 0, 0])))) for x in map(np.asarray, u)]  # fmt: skip
  assert abs(plaquettes[0]) < 0.4 and plaquettes[1] > 0.95
  odd = dataclasses.replace(theory, lattice=(5, 4))
  priors.check(priors.Prior(), odd)
  with pytest.raises(ValueError, match="heat-bath prior needs even extents"):
    marginals.check(marginals.Choice("trivializing", trivializing.Config(), priors.Prior(2.0)), odd)
