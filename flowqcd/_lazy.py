"""Modules of a package, and functions of them, that are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def submodules(
  package: str, names: Sequence[str], functions: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """`__getattr__` and `__dir__` of a package with modules of these names. Other names raise AttributeError.

  functions: names among them that are a function's, each with the module that has it.
  """

  def get(name: str) -> Any:
    if functions and name in functions:
      return getattr(importlib.import_module(f"{package}.{functions[name]}"), name)
    if name not in names:
      raise AttributeError(f"{package} has no module '{name}'; it has {', '.join(names)}")
    return importlib.import_module(f"{package}.{name}")

  return get, lambda: sorted(names)
