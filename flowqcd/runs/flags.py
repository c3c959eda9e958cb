"""The command line of a configuration: `--preset` names one, and every leaf of it has a flag that overrides it."""

from __future__ import annotations

import inspect
import logging
import os
import pathlib
import sys
import textwrap
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from absl import app, flags

from flowqcd import hosts
from flowqcd.runs import stopping, tree

T = TypeVar("T")

HELP = ("-h", "-help", "--help")


_NOTHING_HALF = "nothing is half written"
_INTERRUPTED = 130
"""Status of what Ctrl-C has ended, as shells have it."""


class Presets(NamedTuple):
  """Configurations by name, which of them is meant where none is named, and a line of help for each."""

  configs: Mapping[str, Any]
  default: str
  lines: Mapping[str, str] = {}


def define(presets: Presets, argv: Sequence[str], prefix: str = tree.PREFIX) -> list[str]:
  """Define --preset and one flag per leaf, and return their names; defaults in --help are those of argv's preset."""
  chosen = presets.default
  for i, word in enumerate(argv):
    if word in ("--preset", "-preset") and i + 1 < len(argv):
      chosen = argv[i + 1]
    elif word.startswith(("--preset=", "-preset=")):
      chosen = word.split("=", 1)[1]
  flags.DEFINE_enum(
    "preset", presets.default, sorted(presets.configs), f"Configuration to start from (default: {presets.default})"
  )
  names = ["preset"]
  for path, value, _, doc in tree.leaves(presets.configs.get(chosen, presets.configs[presets.default])):
    flags.DEFINE_string(prefix + path, None, f"{doc} (default: {tree.text(value)})")
    names.append(prefix + path)
  return names


def from_flags(configs: Mapping[str, T], prefix: str = tree.PREFIX) -> T:
  """The preset with the overrides given on the command line. Raises ValueError for bad values."""
  values = flags.FLAGS
  config = configs[values.preset]
  given = {path: values[prefix + path].value for path, *_ in tree.leaves(config)}
  return tree.override(config, {path: text for path, text in given.items() if text is not None}, prefix)


def run(
  main: Callable[[Any], object],
  presets: Presets,
  argv: Sequence[str],
  prefix: str = tree.PREFIX,
  doc: str | None = None,
  words: Callable[[Any, Sequence[str]], object] | None = None,
  goes_on: bool = False,
) -> None:
  """Entry point of a program: parse flags, build the configuration, call main(config); help and errors as of `run_words`.

  argv: the program's name and what follows it. doc: of the program; None for that of main. words: called with the
  configuration and the words that are no flags, where there are any; None refuses them. goes_on: main stores what it does
  and goes on from there, so that signals need not end it at once.
  """
  names = define(presets, argv, prefix)

  def configured(given: Sequence[str]) -> None:
    if given and words is None:
      fail(f"unexpected argument '{given[0]}'; settings are flags, see --help")
    _join_hosts()
    config = from_flags(presets.configs, prefix)
    if given and words is not None:
      words(config, given)
      return
    if goes_on:
      stopping.listen()
    main(config)

  flags.DEFINE_string(
    "coordinator", None, "Several hosts: address:port of the first process; 'auto' on a known cluster."
  )
  flags.DEFINE_integer("num_processes", None, "Several hosts: how many processes there are.")
  flags.DEFINE_integer("process_id", None, "Several hosts: which of them this is, from 0.")
  flags.DEFINE_float("coordinator_timeout", 300.0, "Several hosts: seconds to wait until all processes are there.")
  names += ["coordinator", "num_processes", "process_id", "coordinator_timeout"]
  docs = [inspect.cleandoc(text) for text in (doc or main.__doc__, words.__doc__ if words else None) if text]
  again = "the same command goes on from what is stored" if goes_on else _NOTHING_HALF
  run_words(configured, argv, _described("\n\n".join(docs), presets.lines), names, again)


def run_words(
  main: Callable[[Sequence[str]], None],
  argv: Sequence[str],
  doc: str,
  names: Sequence[str] = (),
  again: str = _NOTHING_HALF,
) -> None:
  """Entry point of a program without a configuration: parse flags, call main(words that are no flags).

  again: what to tell who has interrupted it, which ends with status 130, or stopped it by a signal where it listens to
  them, with stopping.STATUS. Mistakes of the user (ValueError), file errors and numerical failures (ArithmeticError: a
  solver or a training that did not converge) end in one line on stderr and exit status 2. -h and --help show the doc and
  the flags of these names, and end with status 0.
  """

  def guarded(words: Sequence[str]) -> None:
    try:
      told(words)
    except Exception:
      if not jax.distributed.is_initialized():
        raise
      traceback.print_exc()
      hosts.leave(1)

  def told(words: Sequence[str]) -> None:
    try:
      main(words[1:])
    except (ValueError, OSError, ArithmeticError, jax.errors.JaxRuntimeError) as error:
      lost = jax.distributed.is_initialized() and any(word in str(error) for word in _LOST)
      # An error of the device or the compiler is nobody's mistake, and its traceback is wanted.
      if flags.FLAGS.debug or (isinstance(error, jax.errors.JaxRuntimeError) and not lost):
        raise
      fail(f"{_lost(error)}; {again}" if lost else str(error))
    except KeyboardInterrupt:
      fail(f"interrupted; {again}", _INTERRUPTED)
    except stopping.Stopped as stopped:
      fail(f"{stopped}; {again}", stopping.STATUS)

  def parse(argv: Sequence[str]) -> Sequence[str]:
    if any(word in HELP for word in argv[1:]):
      sys.stdout.write(_help(argv[0], doc, [*names, "debug"]))
      sys.exit(0)
    try:
      return flags.FLAGS(argv)
    except flags.Error as error:
      fail(f"{error} (see --help)")

  flags.DEFINE_bool("debug", False, "Show the full traceback of an error.")
  app.run(guarded, argv=list(argv), flags_parser=parse)


def run_settings(main: Callable[[T, Sequence[str]], object], settings: T, argv: Sequence[str], doc: str) -> None:
  """Entry point of a program with words and a few settings: main(settings, words); help and errors as of `run_words`.

  settings: a frozen dataclass, whose fields are flags without a prefix; those that are true or false need no value.
  """
  leaves = tree.leaves(settings)
  for name, value, kind, text in leaves:
    defining = flags.DEFINE_bool if kind is bool else flags.DEFINE_string
    defining(name, None, f"{text} (default: {tree.text(value)})")

  def configured(words: Sequence[str]) -> None:
    given = {name: flags.FLAGS[name].value for name, *_ in leaves}
    texts = {name: str(value) for name, value in given.items() if value is not None}
    main(tree.override(settings, texts, prefix=""), words)

  run_words(configured, argv, doc, [name for name, *_ in leaves])


def _described(doc: str | None, lines: Mapping[str, str]) -> str:
  text = inspect.cleandoc(doc or "")
  return f"{text}\n\nPresets:\n{table(lines)}" if lines else text


def table(lines: Mapping[str, str]) -> str:
  """Names and what they are, a line each."""
  width = max(map(len, lines))
  return "\n".join(f"  {name:{width}}  {line}" for name, line in lines.items())


def _help(program: str, doc: str, names: Sequence[str]) -> str:
  name = pathlib.Path(program).stem if program.endswith(".py") else program
  wrap = lambda text: textwrap.fill(text, 118, initial_indent=" " * 6, subsequent_indent=" " * 6)
  shown = [f"  --{name}:\n{wrap(flags.FLAGS[name].help)}" for name in names]
  return "\n".join([f"usage: {name} [--flag=value ...]", "", doc, "", "Flags:", *shown, ""])


def _join_hosts() -> None:
  """Join the other processes of a run on several hosts, where flags say that there are any."""
  values = flags.FLAGS
  if values.coordinator is None:
    if values.num_processes is not None or values.process_id is not None:
      raise ValueError("--num_processes and --process_id need --coordinator")
    return
  # JAX says at length that it is waiting.
  logging.getLogger("jax._src.distributed").setLevel(logging.WARNING)
  coordinator = None if values.coordinator == "auto" else values.coordinator
  try:
    hosts.initialise_hosts(coordinator, values.num_processes, values.process_id, values.coordinator_timeout)
  except TimeoutError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    # JAX's connection is still waiting, and an ordinary exit would abort on it.
    os._exit(1)


_LOST = ("Gloo", "NCCL", "heartbeat", "coordination service")
"""Words of errors of the connection to other processes."""


def _lost(error: Exception) -> str:
  who = f"process {jax.process_index()} of {jax.process_count()}"
  return f"{who}: {error}; its connection to another process is lost, which has ended"


def fail(message: str, status: int = 2) -> typing.NoReturn:
  """End with one line on stderr and this status; on several hosts at once, for an ordinary exit waits for the others."""
  sys.stderr.write(f"error: {' '.join(message.split())}\n")
  if jax.distributed.is_initialized() and status != stopping.STATUS:
    hosts.leave(status)
  sys.exit(status)
