"""Gauge actions of the user's own, and where modules are looked for."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from fields import links

from flowqcd import presets
from flowqcd.runs import gauge_actions, marginals, theories, trajectories
from flowqcd.theory import gauge

SMOKE = presets.PRESETS["smoke"]
_MODULE = """
from flowqcd.flows import trivializing
from flowqcd.runs import gauge_actions, theories
from flowqcd.theory import gauge

TWICE = gauge_actions.Kind(
  lambda u, beta: 2 * gauge.wilson(u, beta),
  lambda beta, lines: gauge.action(2 * beta, lines),
  1.0,
  lambda u, beta: gauge.wilson(u, beta),
)
NUMBER = 3

def make(theory):
  return trivializing.make(trivializing.Config(steps=1), theories.flow_target(theory), theory.nc, theory.lattice)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A module of the working directory, which is no place where Python looks."""
  monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", ".")])
  (tmp_path / "own_action.py").write_text(_MODULE)
  monkeypatch.chdir(tmp_path)
  yield
  sys.modules.pop("own_action", None)


def test_an_action_of_the_users_own(own):
  theory, u = dataclasses.replace(SMOKE.theory, num_flavours=0, gauge_action="own_action:TWICE"), links(1, (4, 4))
  hmc = trajectories.action(theory, SMOKE.hmc, "double")
  fields = hmc.refresh(jax.random.key(0), u).fields
  found = theories.gauge_value(theory, u), theories.leading_action(theory, u), hmc.value(u, fields)
  np.testing.assert_allclose(found, 2 * gauge.wilson(u, theory.beta), rtol=1e-12)
  with pytest.raises(ValueError, match="theory.gauge_action = wilson, not for own_action:TWICE; remedy"):
    theories.require_plaquettes(theory, "this", "remedy")


@pytest.mark.parametrize("name, words", [
  ("own_action:NUMBER", "theory.gauge_action = 'own_action:NUMBER': module own_action has no gauge_actions.Kind NUMBER"),
  ("own_action:ABSENT", "module own_action has no gauge_actions.Kind ABSENT"), ("no_such:X", "No module named 'no_such'"),
  ("own_action", "theory.gauge_action must be wilson, .* or PACKAGE.MODULE:NAME, not 'own_action'"),
])  # fmt: skip
def test_names_that_are_no_action(own, name, words):
  with pytest.raises(ValueError, match=words):
    dataclasses.replace(SMOKE.theory, gauge_action=name)


def test_a_flow_of_the_working_directory(own):
  assert marginals.kind("own_action:make").make


def test_no_default_says_that_an_action_is_of_plaquettes_alone():
  """What is made for plaquettes alone would be run with another action without a word."""
  with pytest.raises(TypeError, match="'plaquettes' and 'rest'"):
    gauge_actions.Kind(gauge.wilson, gauge.action)
