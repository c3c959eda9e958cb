"""Coverage of every error bar that reports print."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from flowqcd.analysis import coverage
from flowqcd.io import files, metrics
from flowqcd.runs import progress
from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Plan:
  """How much is simulated, and where the table goes."""

  output: str = field("runs/coverage", "Folder for coverage.json and coverage.md; older ones are replaced.")
  repetitions: int = field(150, "Data sets for each seed.")
  seeds: int = field(4, "Seeds, whose coverages are compared.")
  cases: str = field("", "Only those whose title has a match of this regular expression.")


class Case(NamedTuple):
  """One line of the table, or several: a title, and what to repeat."""

  title: str
  simulation: coverage.Simulation


def cases() -> list[Case]:
  """Everything that reports print errors of, where these are easy and where they are not."""
  return [*_weights(), *_chains(), *_others()]


def _weights() -> list[Case]:
  gaussian = lambda ess, num: lambda rng: coverage.gaussian_weights(rng, ess, num)
  power = lambda index, num: lambda rng: coverage.power_weights(rng, index, num)
  sizes = {1.0: (256,), 0.5: (64, 256, 1024), 0.2: (64, 256, 1024), 0.1: (256, 1024, 4096), 0.05: (1024, 4096)}
  sizes[0.02] = (1024, 4096)
  return [
    *(
      Case(f"Gaussian ln w, ESS {ess:g}, N = {num}", coverage.weighted(gaussian(ess, num), 100 * (num == 256)))
      for ess, nums in sizes.items()
      for num in nums
    ),
    *(
      Case(f"P(w) ~ w^-{1 + index:g}, ESS {index * (index - 2) / (index - 1) ** 2:.2f}, N = {num}", simulation)
      for index in (4.0, 2.5, 2.1)
      for num in (256, 1024)
      for simulation in [coverage.weighted(power(index, num), 100 * (num == 256))]
    ),
  ]


def _chains() -> list[Case]:
  found = []
  for tau in (0.5, 2.0, 8.0):
    for total in (20, 50, 100, 300, 1000):
      for streams in (1, 4, 16):
        num = round(total * tau / streams)
        if 8 <= num <= 2000:
          title = f"AR(1), tau_int {tau:g}, N / tau_int = {total}, {streams} x {num}"
          found.append(Case(title, coverage.chain(tau, streams, num)))
  return found


def _others() -> list[Case]:
  figure3 = coverage.figure3
  return [
    Case("16 streams of 50 and of 6 tau_int", coverage.cost_ratio(8.0, 1.0, 16, 50)),
    Case("16 streams of 100 and of 25 tau_int", coverage.cost_ratio(8.0, 2.0, 16, 200)),
    Case("ESS 0.5, N = 1024; 8 streams of 50 tau_int", coverage.difference(0.5, 1024, 4.0, 8, 200)),
    Case("ESS 0.1, N = 4096; 8 streams of 50 tau_int", coverage.difference(0.1, 4096, 4.0, 8, 200)),
    *(Case(f"{streams} streams", coverage.acceptance(0.8, streams, 200)) for streams in (2, 4, 16)),
    *(Case(f"rms dH {rms:g}, N = {num}", coverage.boltzmann(rms, num)) for rms, num in ((0.3, 1000), (1.0, 200))),
    Case("ESS 1, independent HMC, independent panels", figure3(1.0, 1000, 0.5, 0.0, 8, 125, 20)),
    Case("ESS 1, independent HMC, panels correlated by 0.6", figure3(1.0, 1000, 0.5, 0.6, 8, 125, 20)),
    Case("ESS 1, HMC of tau_int 4, independent panels", figure3(1.0, 1000, 4.0, 0.0, 8, 1000, 20)),
    Case("ESS 0.3, independent HMC, independent panels", figure3(0.3, 2000, 0.5, 0.0, 8, 125, 20)),
  ]


class Row(NamedTuple):
  """A line of the table."""

  title: str
  found: coverage.Coverage


def run(config: Plan) -> list[Row]:
  """Simulate, print the table as it grows, and write coverage.json and coverage.md.

  Raises ValueError where no title matches.
  """
  chosen = [(salt, case) for salt, case in enumerate(cases()) if re.search(config.cases, case.title)]
  if not chosen:
    raise ValueError(f"no case has a title that matches '{config.cases}'")
  folder = pathlib.Path(config.output)
  folder.mkdir(parents=True, exist_ok=True)
  clock, rows = time.monotonic(), []
  for salt, case in chosen:
    found = coverage.measure(case.simulation, config.repetitions, config.seeds, salt)
    new = [Row(case.title, c) for c in found]
    progress.show("\n".join(map(_line, new)))
    rows += new
  metrics.write_json(folder / "coverage.json", {"rows": [{"case": row.title} | row.found._asdict() for row in rows]})
  with files.atomic(folder / "coverage.md", overwrite=True) as handle:
    handle.write(markdown(rows).encode())
  progress.show(f"{folder / 'coverage.md'}: {len(rows)} lines in {time.monotonic() - clock:.0f} s")
  return rows


_HEAD = (
  "| case | within 1 error (by seed) | within 2 | bias / scatter | error / scatter | warned | within 1, not warned |\n"
  "|---|---|---|---|---|---|---|"
)


def markdown(rows: Sequence[Row]) -> str:
  """One table for each quantity."""
  quantities = dict.fromkeys(row.found.quantity for row in rows)
  tables = []
  for name in quantities:
    lines = [_line(row, named=False) for row in rows if row.found.quantity == name]
    tables.append("\n".join([f"### {name}\n", _HEAD, *lines]))
  return "\n\n".join(tables) + "\n"


def _line(row: Row, named: bool = True) -> str:
  c = row.found
  title = f"{c.quantity}: {row.title}" if named else row.title
  shown = lambda x, form: "" if math.isnan(x) else format(x, form)
  cells = [
    title,
    f"{c.inside_68:.3f} ({min(c.by_seed):.2f} to {max(c.by_seed):.2f})",
    f"{c.inside_95:.3f}",
    shown(c.bias, "+.2f"),
    shown(c.error_ratio, ".2f"),
    f"{c.warned:.2f}",
    shown(c.unwarned_68, ".3f"),
  ]
  return f"| {' | '.join(cells)} |"
