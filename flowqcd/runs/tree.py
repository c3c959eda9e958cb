"""Settings as a tree of frozen dataclasses: one source of truth for what can be set, with its type, default and meaning.

Field docs come from `metadata={"doc": ...}` (see `field`). A leaf's path is the names of the fields that lead to it,
joined by dots.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


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


def with_groups(base: type, name: str, groups: Mapping[str, Any]) -> type:
  """A dataclass that has the base's fields and then a group of settings of each name, with these defaults."""
  fields = [(group, type(default), default) for group, default in groups.items()]
  own = {"__doc__": base.__doc__, "__module__": base.__module__}
  return dataclasses.make_dataclass(name, fields, bases=(base,), frozen=True, namespace=own)


def choose(table: Mapping[str, T], name: str, setting: str, otherwise: str = "") -> T:
  """The entry of a table. Raises ValueError that names the setting and lists what there is, and what else there may be."""
  if name not in table:
    *others, last = [*table, *([otherwise] if otherwise else [])]
    raise ValueError(f"{setting} must be {', '.join(others)} or {last}, not '{name}'")
  return table[name]


def to_dict(config: Any) -> dict[str, Any]:
  """{path: value} of all leaves, ready for JSON: the provenance written beside results."""
  return {path: value for path, value, _, _ in leaves(config)}


def text(value: Any) -> str:
  """What a flag takes for a value."""
  return ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
