"""A flow of the user's own, named as PACKAGE.MODULE:FUNCTION.

FUNCTION takes a `flowqcd.runs.theories.Theory` and returns a `flowqcd.types.Flow`. Naming it runs its module, so names come
from the command line and from Python alone: what a folder or a model's card says is compared, and never looked up.
"""

from __future__ import annotations

import importlib
from typing import Any

from flowqcd.runs.flows.kind import Kind
from flowqcd.runs.theories import Theory
from flowqcd.types import Flow


def is_name(name: str) -> bool:
  """Whether this is the name of a function rather than of a kind."""
  return ":" in name


def load(name: str) -> Kind:
  """The user's flow. Raises ValueError where there is no such function."""
  module, _, function = name.partition(":")
  try:
    make = getattr(importlib.import_module(module), function, None)
  except (ImportError, ValueError) as error:
    raise ValueError(f"marginal = '{name}': {error}") from error
  if not callable(make):
    raise ValueError(f"marginal = '{name}': module {module} has no function {function}")

  def made(settings: Any, theory: Theory) -> Flow:
    flow = make(theory)
    if not isinstance(flow, Flow):
      raise ValueError(f"marginal = '{name}' made {type(flow).__name__}; it must return a flowqcd.types.Flow")
    return flow

  return Kind(None, None, made)
