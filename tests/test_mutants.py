"""The list of deliberate mistakes is about the code as it is."""

import ast

import mutants
import pytest


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: f"{m.file}:{m.new[:30]}")
def test_each_mistake_can_be_made_and_names_tests(mutant):
  ast.parse(mutants.source(mutant))
  for path in mutant.tests.split():
    assert (mutants.ROOT / path).exists()
