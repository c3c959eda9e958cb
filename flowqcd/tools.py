"""Programs with a few settings of their own, or none: ensembles, check, export, weigh, coverage, exactness."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from flowqcd.runs import flags, session
from flowqcd.stages import check as files
from flowqcd.stages import ensembles as stored


def ensembles(argv: Sequence[str]) -> None:
  """Verify or repair what a run has stored, by the program's name and the words that follow it."""
  flags.run_words(verify_or_repair, argv, stored.__doc__ or "")


def verify_or_repair(words: Sequence[str]) -> None:
  """verify PATH, ending with status 1 where a part is damaged or missing; or repair PATH. ValueError for other words."""
  if len(words) != 2 or words[0] not in ("verify", "repair"):
    raise ValueError("say `verify PATH` or `repair PATH`, with a run's folder, an ensemble's, or an exported file")
  path = pathlib.Path(words[1])
  if words[0] == "repair":
    stored.repair(path)
  elif not stored.verify(path):
    sys.exit(1)


def check(argv: Sequence[str]) -> None:
  """Whether configuration files are whole, by the program's name, the files and flags."""
  flags.run_settings(check_files, files.Plan(), argv, files.__doc__ or "")


def check_files(plan: files.Plan, words: Sequence[str]) -> None:
  """A line for each file, ending with `check.run`'s status unless that is 0. ValueError without a file."""
  if not words:
    raise ValueError("name the configuration files to check")
  if status := files.run(plan, words):
    sys.exit(status)


def export(argv: Sequence[str]) -> None:
  """Configurations of a run as files, by the program's name, the run and flags."""
  from flowqcd.stages import export as stage  # jax is slow to import, and checking files does not need it

  def exported(plan: stage.Plan, words: Sequence[str]) -> None:
    if len(words) != 1:
      raise ValueError("name the run's folder, or an ensemble's, and --to=FOLDER")
    session.start()  # log weights in double precision
    stage.run(pathlib.Path(words[0]), plan)

  flags.run_settings(exported, stage.Plan(), argv, stage.__doc__ or "")


def weigh(argv: Sequence[str]) -> None:
  """Weights of configuration files under a trained flow, by the program's name, the files and flags."""
  from flowqcd.stages import weigh as stage  # models are slow to import, and only needed here

  def weighed(plan: stage.Plan, words: Sequence[str]) -> None:
    if not words:
      raise ValueError("name the configuration files to weigh")
    session.start()
    stage.run(plan, words)

  flags.run_settings(weighed, stage.Plan(), argv, stage.__doc__ or "")


def coverage(argv: Sequence[str]) -> None:
  """How often error bars cover the truth."""
  from flowqcd.stages import coverage as stage  # scipy.stats is slow to import, and only needed here

  plans = {"all": stage.Plan(), "quick": stage.Plan(repetitions=50, seeds=2)}
  lines = {"all": "every case in full", "quick": "every case with a sixth of the data"}
  flags.run(stage.run, flags.Presets(plans, "all", lines), argv, prefix="")


def exactness(argv: Sequence[str]) -> None:
  """Every sampler against answers that are known; ends with status 1 where one is wrong."""
  from flowqcd.stages import exactness as stage  # all samplers are slow to import, and only needed here

  def checked(plan: stage.Plan) -> None:
    if not stage.run(plan).passed:
      sys.exit(1)

  flags.run(checked, flags.Presets({"all": stage.Plan()}, "all"), argv, prefix="", doc=stage.run.__doc__)
