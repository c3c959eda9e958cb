"""A mistake, and the tests that must see it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
  """In `file` the text `old`, which occurs once, becomes `new`. tests: what must fail then, as arguments of pytest."""

  file: str
  old: str
  new: str
  tests: str


def of(file: str, tests: str, *changes: tuple[str, str]) -> list[Mutant]:
  """Mistakes in one file below flowqcd/, as pairs of old and new text."""
  return [Mutant(f"flowqcd/{file}", old, new, tests) for old, new in changes]
