"""Modules of a package that are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType


def submodules(package: str, names: Sequence[str]) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
  """`__getattr__` and `__dir__` of a package with modules of these names. Other names raise AttributeError."""

  def get(name: str) -> ModuleType:
    if name not in names:
      raise AttributeError(f"{package} has no module '{name}'; it has {', '.join(names)}")
    return importlib.import_module(f"{package}.{name}")

  return get, lambda: sorted(names)
