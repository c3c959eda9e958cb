"""Which gauge action a theory has: a table of kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flowqcd.runs import own, tree
from flowqcd.theory import gauge
from flowqcd.types import Action, Array


class Kind(NamedTuple):
  """A gauge action.

  value: (u, beta) -> S, without constants. make: (beta, couplings of winding lines) -> the same as an Action, with the
  lines where they have couplings. plaquettes: c0, their coupling in units of beta. rest: (u, beta) -> what S has beside
  plaquettes; None where they are all of it, and what is made for these alone may be used.
  """

  value: Callable[[Array, float | Array], Array]
  make: Callable[[float | Array, gauge.LineCouplings], Action]
  plaquettes: float
  rest: Callable[[Array, float | Array], Array] | None


def kind(name: str) -> Kind:
  """What a name means: an entry of the table, or the user's PACKAGE.MODULE:NAME, a Kind. Raises ValueError for neither."""
  if own.is_name(name):
    return own.load(name, "theory.gauge_action", "gauge_actions.Kind", lambda found: isinstance(found, Kind))
  return tree.choose(KINDS, name, "theory.gauge_action", own.WORDS)


def _with_rectangles(c1: float) -> Kind:
  return Kind(
    lambda u, beta: gauge.improved(u, beta, c1),
    lambda beta, lines: gauge.action(beta, lines, c1),
    float(gauge.plaquette_share(c1)),
    lambda u, beta: gauge.of_rectangles(u, c1 * beta),
  )


KINDS: Mapping[str, Kind] = {
  "wilson": Kind(gauge.wilson, gauge.action, 1.0, None),
  "symanzik": _with_rectangles(gauge.SYMANZIK),
  "iwasaki": _with_rectangles(gauge.IWASAKI),
  "dbw2": _with_rectangles(gauge.DBW2),
}
