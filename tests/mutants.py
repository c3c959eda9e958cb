"""Deliberate mistakes, each of which must fail the tests named beside it: `make mutants`.

A test suite is worth what it catches. The script puts the mistakes of `tests/mistakes/` into a copy of the tree, one at a
time, runs the tests beside each there and expects them to fail. It prints a line for each, and ends with status 1 if any
survived.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mistakes import MUTANTS
from mistakes.mutant import Mutant

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("flowqcd", "experiments", "tests", "docs", "pyproject.toml", "Makefile", "README.md")


def source(mutant: Mutant, root: Path = ROOT) -> str:
  """The mutated file's text. Raises ValueError unless the text to change occurs exactly once."""
  text = (root / mutant.file).read_text()
  if text.count(mutant.old) != 1:
    raise ValueError(f"{mutant.file}: '{mutant.old}' occurs {text.count(mutant.old)} times, not once")
  return text.replace(mutant.old, mutant.new)


def caught(mutant: Mutant, root: Path) -> bool:
  """Whether the mutant's tests fail with it in the copy of the tree at root, which is as before afterwards."""
  path = root / mutant.file
  before, text = path.read_text(), source(mutant, root)
  path.write_text(text)
  try:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests.split()]
    # The copy's own code, and the tree's own store of what is compiled: most programs are those without the mistake.
    places = {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(ROOT / ".cache")}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | places)
  finally:
    path.write_text(before)
  # 1: tests failed. Anything else but 0 means that no test was run, which proves nothing.
  if done.returncode not in (0, 1):
    raise RuntimeError(f"pytest ended with {done.returncode} for {mutant}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
  return done.returncode == 1


def chosen(word: str, first: int) -> list[tuple[str, Mutant]]:
  """Mutants in whose file, text or tests the word occurs, from the first-th of them on, each with its "number/count"."""
  found = [mutant for mutant in MUTANTS if any(word in part for part in mutant)]
  if not 1 <= first <= len(found):
    raise ValueError(f"there are {len(found)} mistakes with '{word}' in them, and none is number {first}")
  return [(f"{i}/{len(found)}", mutant) for i, mutant in enumerate(found, 1)][first - 1 :]


def run(mutants: Sequence[tuple[str, Mutant]]) -> int:
  """Make these mistakes, show a line for each, and return the number of survivors."""
  survived = 0
  with tempfile.TemporaryDirectory() as folder:
    for part in PARTS:
      copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
      copy(ROOT / part, Path(folder) / part)
    for number, mutant in mutants:
      start = time.monotonic()
      found = caught(mutant, Path(folder))
      survived += not found
      verdict = "caught" if found else "SURVIVED"
      print(f"{number} {verdict} {time.monotonic() - start:.0f} s  {mutant.file}: {mutant.new!r}", flush=True)
  print(f"{len(mutants) - survived} of {len(mutants)} mistakes caught")
  return survived


def main() -> None:
  """Run the mutants that the command line chooses."""
  parser = argparse.ArgumentParser(description="Make deliberate mistakes, which tests must see.")
  parser.add_argument("word", nargs="?", default="", help="only mutants in whose file, text or tests it occurs")
  parser.add_argument("--from", dest="first", metavar="N", type=int, default=1, help="go on from the N-th of these")
  words = parser.parse_args()
  try:
    mutants = chosen(words.word, words.first)
  except ValueError as error:
    parser.error(str(error))
  sys.exit(run(mutants) > 0)


if __name__ == "__main__":
  main()
