"""The command line: `flowqcd STAGE --preset=... --config...`, or `python -m flowqcd STAGE ...`."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flowqcd import commands, presets, tools
from flowqcd.runs import flags


class Command(NamedTuple):
  """What it does, in a line; and how it is run, from the program's name and the words that follow it."""

  line: str
  run: Callable[[Sequence[str]], None]


def _configured(
  run: Callable[[Any], object],
  default: str,
  files: Callable[[Any, Sequence[str]], object] | None = None,
  suffix: str = "",
  goes_on: bool = True,
) -> Callable[[Sequence[str]], None]:
  """A command whose settings are the tree, from this preset where none is named; files: what it does with words.

  suffix: of the presets' folders, for a command that is no part of the chain and has another theory as a rule.
  goes_on: as of `flags.run`.
  """
  configs = {name: dataclasses.replace(x, output=x.output + suffix) for name, x in presets.PRESETS.items()}
  named = flags.Presets(configs, default, presets.LINES)
  return lambda argv: flags.run(run, named, argv, words=files, goes_on=goes_on)


COMMANDS: Mapping[str, Command] = {
  "reproduce": Command(
    "the whole chain: train, sample, HMC, measure, figures", _configured(commands.reproduce, "reproduce")
  ),
  "train_marginal": Command("train the flow of the links", _configured(commands.train_marginal, "reproduce")),
  "train_conditional": Command(
    "train the model of pseudofermions after it", _configured(commands.train_conditional, "reproduce")
  ),
  "sample": Command("draw configurations with exact weights", _configured(commands.sample, "reproduce")),
  "run_hmc": Command("Hybrid Monte Carlo in independent streams", _configured(commands.run_hmc, "reproduce")),
  "measure": Command(
    "observables of flow and HMC, or of configuration files",
    _configured(commands.measure, "reproduce", commands.measure_files),
  ),
  "make_figures": Command("figures, report and summary", _configured(commands.make_figures, "reproduce")),
  "anneal": Command(
    "from a flow on to stronger couplings, with exact weights",
    _configured(commands.anneal, "su3_4d", suffix="_annealed"),
  ),
  "compare_chains": Command(
    "what an independent value costs of HMC, heat bath and link flow",
    _configured(commands.compare_chains, "su3_4d", suffix="_chains"),
  ),
  "publish": Command("a file of each trained model, with a card", _configured(commands.publish, "su3_4d")),
  "profile_training": Command(
    "what a training step costs", _configured(commands.profile_training, "paper", goes_on=False)
  ),
  "ensembles": Command("verify or repair what a run has stored", tools.ensembles),
  "check": Command("whether configuration files of any format are whole, and what they hold", tools.check),
  "export": Command("configurations of a run as files for other codes, with weights or as a chain", tools.export),
  "weigh": Command("log weights of configuration files under a trained flow", tools.weigh),
  "coverage": Command("how often error bars cover the truth", tools.coverage),
  "exactness": Command("every sampler against answers that are known", tools.exactness),
}


def main() -> None:
  """Run the stage that the first word names, with the flags that follow."""
  program = "flowqcd" if pathlib.Path(sys.argv[0]).stem == "flowqcd" else "python -m flowqcd"
  stage, *words = sys.argv[1:] or [""]
  if stage in flags.HELP:
    sys.stdout.write(overview(program))
  elif stage not in COMMANDS:
    flags.fail(f"no stage '{stage}'; there are {', '.join(COMMANDS)} (see {program} --help)")
  else:
    COMMANDS[stage].run([f"{program} {stage}", *words])


def overview(program: str) -> str:
  """What there is to run."""
  stages = flags.table({name: command.line for name, command in COMMANDS.items()})
  return (
    f"usage: {program} STAGE [--preset=NAME] [--config.GROUP.FIELD=VALUE ...]\n\nStages:\n{stages}\n\n"
    f"Presets:\n{flags.table(presets.LINES)}\n\n{program} STAGE --help lists what can be set.\n"
  )
