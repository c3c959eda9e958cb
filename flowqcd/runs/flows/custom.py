"""A flow of the user's own, named as PACKAGE.MODULE:FUNCTION.

FUNCTION takes a `flowqcd.runs.theories.Theory` and returns a `flowqcd.types.Flow`.
"""

from __future__ import annotations

from typing import Any

from flowqcd.runs import own
from flowqcd.runs.flows.kind import Kind
from flowqcd.runs.theories import Theory
from flowqcd.types import Flow


def load(name: str) -> Kind:
  """The user's flow. Raises ValueError where there is no such function."""
  make = own.load(name, "marginal", "function", callable)

  def made(settings: Any, theory: Theory) -> Flow:
    flow = make(theory)
    if not isinstance(flow, Flow):
      raise ValueError(f"marginal = '{name}' made {type(flow).__name__}; it must return a flowqcd.types.Flow")
    return flow

  return Kind(None, None, made)
