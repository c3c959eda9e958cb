"""Command lines as pages show them: what they run, and what their flags mean, without running it."""

import contextlib

import pytest
from absl import app
from absl import flags as absl_flags

from flowqcd import command_line, tools
from flowqcd.runs import flags


def stage(words: list[str]) -> tuple[str, list[str]]:
  """The stage that a command runs, and the words after it. Raises ValueError for a command that is none of ours."""
  match words:
    case ["python", "-m", "flowqcd", name, *rest] | ["flowqcd", name, *rest]:
      return name, rest
    case ["python", "-m", module, *rest] if module.startswith("experiments."):
      return module.removeprefix("experiments."), rest
  raise ValueError(f"no command of this package: {' '.join(words)}")


@contextlib.contextmanager
def _fresh_flags():
  before = set(absl_flags.FLAGS)
  try:
    yield
  finally:
    for name in set(absl_flags.FLAGS) - before:
      delattr(absl_flags.FLAGS, name)


def parse(words: list[str]) -> object:
  """The settings that a command would run with, or its words where it has no settings; nothing is run.

  Ends like the program does, by SystemExit, where it refuses them.
  """
  name, rest = stage(words)
  seen = []
  run, run_settings = flags.run, flags.run_settings

  def recorded(main, presets, argv, prefix="config.", doc=None, words=None, **rest):
    run(seen.append, presets, argv, prefix, doc or "", words and (lambda config, given: seen.append(config)), **rest)

  with pytest.MonkeyPatch.context() as patch, _fresh_flags():
    patch.setattr(app, "run", lambda main, argv, flags_parser: main(flags_parser(argv)))
    patch.setattr(flags, "_join_hosts", lambda: None)
    patch.setattr(flags, "run", recorded)
    patch.setattr(flags, "run_settings", lambda main, *rest: run_settings(lambda found, _: seen.append(found), *rest))
    patch.setattr(tools, "verify_or_repair", seen.append)
    command_line.COMMANDS[name].run([name, *rest])
  (found,) = seen
  return found
