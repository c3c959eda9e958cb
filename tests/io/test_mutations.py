"""Whatever is damaged in a file: a clear error, or what it held; no crash, no hang, nothing wrong in silence."""

import damaged
import pytest
from mutations import mutants, outcome, tally

from flowqcd.io.files import FieldFileError

_COUNT = 300


@pytest.mark.parametrize("form", list(damaged.CONFIGURATIONS))
def test_damage_of_configurations(tmp_path, form):
  (case,) = damaged.CONFIGURATIONS[form](tmp_path)
  counts = tally(damaged.run(case, _COUNT, 2208))
  assert counts["refused"] > _COUNT / 3
  # Wrong is only what has no checksum, or lost it: rarely two mutations meet for that.
  assert form == "plain lime" or counts.get("unvouched", 0) < 5


@pytest.mark.parametrize("kind", list(damaged.STORES))
def test_damage_of_stores(tmp_path, kind):
  cases, counts = damaged.STORES[kind](tmp_path), {}
  for case in cases:
    found = tally(damaged.run(case, _COUNT // len(cases), 2208))
    counts = {name: counts.get(name, 0) + found.get(name, 0) for name in counts | found}
  # Torn ends of lines are what a kill leaves, and some files of a checkpoint hold nothing that is read.
  assert counts["refused"] > _COUNT * (0.4 if kind in ("JSON lines", "checkpoint") else 0.8), counts


def test_mutations_depend_on_the_seed_alone():
  good = bytes(range(256)) * 40 + b"a line of text 123\n" * 9
  assert list(mutants(good, 20, 1)) == list(mutants(good, 20, 1))
  assert list(mutants(good, 20, 1)) != list(mutants(good, 20, 2))
  assert {m.kind for m in mutants(good, 400, 1) if "+" not in m.kind} == {
    "flip", "byte", "cut", "remove", "extend", "insert", "zero", "duplicate", "swap", "digit", "word"
  }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"a", b"12"])
def test_mutations_of_next_to_nothing(data):
  assert len(list(mutants(data, 200))) == 200


def test_a_wrong_field_in_silence_is_an_assertion():
  with pytest.raises(AssertionError, match="a wrong field"):
    outcome(lambda: 1, lambda value: False, FieldFileError, "a")
  with pytest.raises(KeyError):
    outcome(lambda: {}["a"], bool, FieldFileError, "a")
