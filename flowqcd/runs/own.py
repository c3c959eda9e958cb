"""What is the user's own, named as PACKAGE.MODULE:NAME.

Naming it runs its module, so names come from the command line and from Python alone: what a folder or a model's card says
is compared, and never looked up.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

WORDS = "PACKAGE.MODULE:NAME"
"""How such a name is written, for messages."""


def is_name(name: str) -> bool:
  """Whether this names something of the user's own rather than an entry of a table."""
  return ":" in name


def load(name: str, setting: str, what: str, fits: Callable[[Any], bool]) -> Any:
  """What the name stands for; modules are looked for in the working directory too, after all other places.

  Raises ValueError, naming the setting, where there is no such module, or nothing in it that fits; what: its kind, for the
  message.
  """
  module, _, attribute = name.partition(":")
  # Installed programs, unlike `python -m`, start without it.
  if os.getcwd() not in sys.path:
    sys.path.append(os.getcwd())
  try:
    found = getattr(importlib.import_module(module), attribute, None)
  except (ImportError, ValueError) as error:
    raise ValueError(f"{setting} = '{name}': {error}") from error
  if not fits(found):
    raise ValueError(f"{setting} = '{name}': module {module} has no {what} {attribute}")
  return found
