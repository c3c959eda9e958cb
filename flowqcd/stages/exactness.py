"""Every sampler against answers that are known."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flowqcd.io import metrics
from flowqcd.runs import progress, session, tree
from flowqcd.runs.tree import field
from flowqcd.stages import exact_cases, exact_sampling


@dataclasses.dataclass(frozen=True)
class Plan:
  """How long, and where results go."""

  minutes: float = field(30.0, "Minutes of sampling, besides compiling, shared by all cases.")
  output: str = field("runs/exactness", "Folder for exactness.json; an older one is replaced.")
  seed: int = field(0, "Of all random numbers.")
  compilation: str = field("full", "full, or quick: programs compile in two thirds of the time.")
  cases: str = field("", "Only those whose name has a match of this regular expression.")

  def __post_init__(self) -> None:
    """Raise ValueError for no time."""
    if not self.minutes > 0:
      raise ValueError(f"minutes must be positive, not {self.minutes}")


class Pull(NamedTuple):
  """(found - exact)/error of one observable; error has the reference's in it where exact is another sampler's."""

  case: str
  observable: str
  found: float
  exact: float
  error: float
  pull: float
  num: int
  seconds: float


class Summary(NamedTuple):
  """Of pulls: mean in units of its error, width, chi^2 with its p-value, the largest, and whether all is well."""

  num: int
  mean: float
  width: float
  chi2: float
  p_value: float
  largest: float
  passed: bool


LEAST_P, LEAST_P_OF_LARGEST = 1e-4, 1e-3
"""Of chi^2, and of the largest pull among all: a single sampler that is wrong hardly moves the former."""


def summarise(pulls: Sequence[float]) -> Summary:
  """Pulls of exact samplers have mean 0 and width 1.

  Failed are p < 1e-4, a largest |pull| that one set of so many in a thousand has, and one that is not finite.
  """
  from scipy import stats  # slow to import, and only needed here

  x = np.asarray(pulls, float)
  chi2 = float(np.sum(x * x))
  p, largest = float(stats.chi2.sf(chi2, len(x))), float(np.max(np.abs(x)))
  p_largest = len(x) * 2 * float(stats.norm.sf(largest))
  # Not "p < ...", which NaN would pass.
  return Summary(
    len(x), float(np.mean(x) * math.sqrt(len(x))), float(np.sqrt(np.mean(x * x))), chi2, p, largest,
    p >= LEAST_P and p_largest >= LEAST_P_OF_LARGEST,
  )  # fmt: skip


def compare(
  case: exact_sampling.Case, sampled: exact_sampling.Sampled, references: dict[str, exact_sampling.Sampled]
) -> list[Pull]:
  """Pulls of what is known of this case; none of a reference."""
  if isinstance(case.known, str):
    known = references[case.known].estimates
  else:
    known = {name: (value, 0.0) for name, value in case.known.items()}
  pulls = []
  for name, (value, error) in sampled.estimates.items():
    if name in known:
      exact, uncertainty = map(float, known[name])
      total = math.hypot(float(error), uncertainty)
      found = float(value)
      pulls.append(Pull(case.name, name, found, exact, total, (found - exact) / total, sampled.num, sampled.seconds))
  return pulls


def run(config: Plan) -> Summary:
  """Run all cases, print each as it ends, write exactness.json, and return the summary.

  Raises ValueError where no case has such a name.
  """
  session.start(config.compilation)
  every = exact_cases.all_cases()
  wanted = [case for case in every if re.search(config.cases, case.name)]
  if not wanted:
    raise ValueError(f"no case has a name that matches '{config.cases}'")
  needed = {case.known for case in wanted if isinstance(case.known, str)} | {case.name for case in wanted}
  folder = pathlib.Path(config.output)
  folder.mkdir(parents=True, exist_ok=True)
  pulls: list[Pull] = []
  sampled: dict[str, exact_sampling.Sampled] = {}
  root = jax.random.key(config.seed)
  progress.show(_HEAD)
  for salt, case in enumerate(every):
    if case.name not in needed:
      continue
    share = 60 * config.minutes / len(needed)
    sampled[case.name] = exact_sampling.sample(case, jax.random.fold_in(root, salt), share)
    new = compare(case, sampled[case.name], sampled)
    progress.show("\n".join(map(_line, new)) if new else f"{case.name}: a reference, {sampled[case.name].num} items")
    pulls += new
    _write(folder / "exactness.json", config, pulls)
  summary = summarise([pull.pull for pull in pulls])
  progress.show(
    f"{summary.num} pulls: mean {summary.mean:+.2f} of its error, width {summary.width:.2f}, chi^2 = {summary.chi2:.1f} "
    f"(p = {summary.p_value:.2g}), largest {summary.largest:.1f}: {'passed' if summary.passed else 'FAILED'}"
  )
  return summary


def _write(path: pathlib.Path, config: Plan, pulls: Sequence[Pull]) -> None:
  content: dict[str, Any] = tree.to_dict(config)
  if pulls:
    content["summary"] = summarise([pull.pull for pull in pulls])._asdict()
  content["pulls"] = [pull._asdict() for pull in pulls]
  metrics.write_json(path, content)


_HEAD = f"{'case':38} {'observable':16} {'found':>12} {'exact':>12} {'error':>9} {'pull':>6} {'items':>8} {'s':>6}"


def _line(p: Pull) -> str:
  numbers = f"{p.found:12.7f} {p.exact:12.7f} {p.error:9.2g} {p.pull:+6.2f} {p.num:8d} {p.seconds:6.1f}"
  return f"{p.case:38} {p.observable:16} {numbers}"
