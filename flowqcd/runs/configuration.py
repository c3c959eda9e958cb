"""Flags from frozen dataclasses: one source of truth for what can be set, with its type, default and meaning.

A configuration is a tree of frozen dataclasses. `--preset` names an instance, and every leaf has a flag
`--config.<path>` that overrides it. Field docs come from `metadata={"doc": ...}` (see `field`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from absl import app, flags

from flowqcd import distributed

T = TypeVar("T")

flags.disclaim_key_flags()  # So that --help shows them as the binary's own.


def field(default: Any, doc: str) -> Any:
  """A dataclass field with a default and a line of help."""
  return dataclasses.field(default=default, metadata={"doc": doc})


def leaves(config: Any, prefix: str = "") -> list[tuple[str, Any, Any, str]]:
  """(path, value, type, doc) of every field that is not itself a dataclass, in order."""
  hints = typing.get_type_hints(type(config))
  found = []
  for item in dataclasses.fields(config):
    value, path = getattr(config, item.name), prefix + item.name
    if dataclasses.is_dataclass(value):
      found += leaves(value, path + ".")
    else:
      found.append((path, value, hints[item.name], item.metadata.get("doc", "")))
  return found


def parse(text: str, kind: Any, flag: str) -> Any:
  """The value of a field from its flag's text. Raises ValueError naming the flag and what it takes."""
  origin = typing.get_origin(kind)
  if origin in (typing.Union, types.UnionType):
    options = [k for k in typing.get_args(kind) if k is not type(None)]
    return None if text.lower() in ("none", "") else parse(text, options[0], flag)
  if origin is tuple:
    item = typing.get_args(kind)[0]
    inside = text.strip("()[] ")
    return tuple(parse(part.strip(), item, flag) for part in re.split("[,x]", inside)) if inside else ()
  if kind is bool:
    if text.lower() not in ("true", "false", "1", "0"):
      raise ValueError(f"--{flag} takes true or false, not '{text}'")
    return text.lower() in ("true", "1")
  try:
    return kind(text)
  except ValueError:
    raise ValueError(f"--{flag} takes {_kind_name(kind)}, not '{text}'") from None


def _kind_name(kind: Any) -> str:
  return {int: "an integer", float: "a number", str: "text"}.get(kind, str(kind))


PREFIX = "config."
"""Of the flags of a tree's leaves; tools of a few settings of their own do without."""


def override(config: T, changes: Mapping[str, str], prefix: str = PREFIX) -> T:
  """A copy of the tree with leaves replaced by parsed texts, {path: text}. Raises ValueError for bad values."""
  kinds = {path: kind for path, _, kind, _ in leaves(config)}
  tree: dict[str, Any] = {}
  for path, text in changes.items():
    tree[path] = parse(text, kinds[path], prefix + path)
  return _replace(config, tree, "")


def _replace(config: Any, changes: Mapping[str, Any], prefix: str) -> Any:
  new = {}
  for item in dataclasses.fields(config):
    path = prefix + item.name
    value = getattr(config, item.name)
    if dataclasses.is_dataclass(value):
      new[item.name] = _replace(value, changes, path + ".")
    elif path in changes:
      new[item.name] = changes[path]
  return dataclasses.replace(config, **new)


def to_dict(config: Any) -> dict[str, Any]:
  """{path: value} of all leaves, ready for JSON: the provenance written beside results."""
  return {path: value for path, value, _, _ in leaves(config)}


def _text(value: Any) -> str:
  return ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def define(presets: Mapping[str, T], default: str, argv: Sequence[str] | None = None, prefix: str = PREFIX) -> None:
  """Define --preset and one flag per leaf; defaults shown by --help are those of the preset named in argv."""
  argv = sys.argv if argv is None else argv
  chosen = default
  for i, word in enumerate(argv):
    if word in ("--preset", "-preset") and i + 1 < len(argv):
      chosen = argv[i + 1]
    elif word.startswith(("--preset=", "-preset=")):
      chosen = word.split("=", 1)[1]
  flags.DEFINE_enum("preset", default, sorted(presets), "Configuration to start from.")
  shown = presets.get(chosen, presets[default])
  for path, value, _, doc in leaves(shown):
    flags.DEFINE_string(prefix + path, None, f"{doc} (default: {_text(value)})")


def from_flags(presets: Mapping[str, T], prefix: str = PREFIX) -> T:
  """The preset with the overrides given on the command line. Raises ValueError for bad values."""
  values = flags.FLAGS
  config = presets[values.preset]
  given = {path: values[prefix + path].value for path, *_ in leaves(config)}
  return override(config, {path: text for path, text in given.items() if text is not None}, prefix)


def run(main: Any, presets: Mapping[str, T], default: str, prefix: str = PREFIX) -> None:
  """Entry point of a binary: parse flags, build the configuration, call main(config); errors as of `run_words`."""
  define(presets, default, prefix=prefix)

  def configured(words: Sequence[str]) -> None:
    if words:
      _fail(f"unexpected argument '{words[0]}'; settings are flags, see --help")
    _join_hosts()
    main(from_flags(presets, prefix))

  flags.DEFINE_string(
    "coordinator", None, "Several hosts: address:port of the first process; 'auto' on a known cluster."
  )
  flags.DEFINE_integer("num_processes", None, "Several hosts: how many processes there are.")
  flags.DEFINE_integer("process_id", None, "Several hosts: which of them this is, from 0.")
  flags.DEFINE_float("coordinator_timeout", 300.0, "Several hosts: seconds to wait until all processes are there.")
  run_words(configured)


def run_words(main: Callable[[Sequence[str]], None]) -> None:
  """Entry point of a binary without a configuration: parse flags, call main(words that are no flags).

  Mistakes of the user (ValueError), file errors and numerical failures (ArithmeticError: a solver or a training that did
  not converge) end in one line on stderr and exit status 2.
  """

  def guarded(argv: Sequence[str]) -> None:
    try:
      main(argv[1:])
    except (ValueError, OSError, ArithmeticError) as error:
      if flags.FLAGS.debug:
        raise
      _fail(str(error))

  flags.DEFINE_bool("debug", False, "Show the full traceback of an error.")
  app.run(guarded, flags_parser=_parse_flags)


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
    distributed.initialise_hosts(coordinator, values.num_processes, values.process_id, values.coordinator_timeout)
  except TimeoutError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.stderr.flush()
    # JAX's connection is still waiting, and an ordinary exit would abort on it.
    os._exit(1)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    _fail(f"{error} (see --help)")
    raise


def _fail(message: str) -> typing.NoReturn:
  sys.stderr.write(f"error: {' '.join(message.split())}\n")
  sys.exit(2)
