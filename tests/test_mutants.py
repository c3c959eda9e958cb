"""The list of deliberate mistakes is about the code as it is."""

import ast

import mutants
import pytest
from mistakes import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}:{m.new[:30]}")
def test_each_mistake_can_be_made_and_names_tests(mutant):
  ast.parse(mutants.source(mutant))
  for path in mutant.tests.split():
    assert (mutants.ROOT / path).exists()


def test_no_mistake_is_there_twice():
  assert len({mutant[:3] for mutant in MUTANTS}) == len(MUTANTS) > 100


def test_a_run_goes_on_from_a_number():
  every = mutants.chosen("lattice/loops.py", 1)
  assert [number for number, _ in every] == [f"{i}/{len(every)}" for i in range(1, len(every) + 1)]
  assert mutants.chosen("lattice/loops.py", 3) == every[2:]
  for first in (0, len(every) + 1):
    with pytest.raises(ValueError, match=f"none is number {first}"):
      mutants.chosen("lattice/loops.py", first)
