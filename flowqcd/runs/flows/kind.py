"""What a kind of flow of links says of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flowqcd.runs.theories import Theory
from flowqcd.types import Flow


class Kind(NamedTuple):
  """A kind of flow of links.

  group: name of its settings among a run's, so that --config.<group>.<field> sets them; config: their dataclass. make:
  (settings, theory) -> the flow. check raises ValueError where there is no such flow of a theory. finer: settings of the
  same flow with half the integrator's step, for flows that have one. A kind without settings has None for all of them.
  """

  group: str | None
  config: type | None
  make: Callable[[Any, Theory], Flow]
  check: Callable[[Any, Theory], None] = lambda settings, theory: None
  finer: Callable[[Any], Any] | None = None
