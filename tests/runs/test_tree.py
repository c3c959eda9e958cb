"""Trees of settings: their leaves, texts and copies."""

import dataclasses

import pytest

from flowqcd import presets
from flowqcd.experiment import Experiment
from flowqcd.runs import tree


def test_every_leaf_is_documented():
  for path, _, _, doc in tree.leaves(presets.PRESETS["paper"]):
    assert doc, f"{path} has no line of help"


@pytest.mark.parametrize("name, config", presets.PRESETS.items())
def test_every_leaf_survives_its_own_flag(name, config):
  changes = {path: tree.text(value) for path, value, _, _ in tree.leaves(config)}
  assert tree.override(config, changes) == config


def test_overrides_by_type():
  config = tree.override(
    presets.PRESETS["reproduce"],
    {
      "theory.lattice": "8x4x4x6",
      "theory.beta": "2",
      "training.path_gradient": "false",
      "flow.steps": "4",
    },
  )
  assert config.theory.lattice == (8, 4, 4, 6) and config.theory.beta == 2.0
  assert config.training.path_gradient is False and config.flow.steps == 4
  assert dataclasses.replace(config, theory=presets.PRESETS["reproduce"].theory) != config


@pytest.mark.parametrize("path, text, words", [
  ("theory.lattice", "4,x", "an integer"),
  ("theory.lattice", "4,4,4", "2 or 4 dimensions"),
  ("theory.lattice", "4,4,4,5", "even extents"),
  ("theory.lattice", "4,4,4,2", "at least 3"),
  ("theory.nc", "4", "1, 2 or 3"),
  ("theory.beta", "-1", "not be negative"),
  ("theory.kappa", "0", "positive"),
  ("theory.boundary", "1,1", "one phase per direction"),
  ("theory.num_flavours", "1", "must be 0, or 2"),
  ("flow.order", "3", "order"),
  ("flow.loops", "aab", "not closed"),
  ("flow.loops", "aaaabAAAAB", "wider than the lattice"),
  ("annealing.loops", "aabAAB,abAcBC", "make up W1"),
  ("hmc.integrator", "euler", "leapfrog"),
  ("hmc.trajectories", "7", "multiple"),
  ("hmc.tau", "0", "tau"),
  ("hmc.streams", "0", "at least 1"),
  ("sampling.num_samples", "0", "at least 1"),
  ("sampling.batch", "1.5", "an integer"),
  ("training.determinant", "guess", "stochastic"),
  ("training.path_gradient", "maybe", "true or false"),
  ("measurement.flow_time", "-1", "flow_time"),
  ("optimizer.learning_rate", "0", "learning_rate"),
  ("precision", "half", "single or double"),
])  # fmt: skip
def test_bad_values_are_named(path, text, words):
  with pytest.raises(ValueError, match=words):
    tree.override(presets.PRESETS["reproduce"], {path: text})


@dataclasses.dataclass(frozen=True)
class _Base:
  """A base."""

  a: int = tree.field(1, "One.")


@dataclasses.dataclass(frozen=True)
class _Inner:
  x: float = tree.field(0.5, "Half.")


def test_groups_from_a_table():
  made = tree.with_groups(_Base, "Made", {"inner": _Inner(), "other": _Inner(2.0)})
  assert tree.to_dict(made()) == {"a": 1, "inner.x": 0.5, "other.x": 2.0}
  assert tree.override(made(), {"other.x": "3"}).other.x == 3.0 and made.__doc__ == "A base."


@pytest.mark.parametrize("name, shown", [
  ("marginal", "marginal must be trivializing, spectral, residual or PACKAGE.MODULE:FUNCTION, not 'x'"),
  ("conditional.kind", "conditional.kind must be none, hopping, ptcn or both, not 'x'"),
  ("hmc.integrator", "hmc.integrator must be leapfrog, omelyan2 or omelyan4, not 'x'"),
  ("annealing.moves", "annealing.moves must be heatbath, link_flow or hmc, not 'x'"),
])  # fmt: skip
def test_unknown_names_are_told_what_there_is(name, shown):
  with pytest.raises(ValueError) as error:
    tree.override(Experiment(), {name: "x"})
  assert str(error.value) == shown
