"""What an ensemble cost, by the CPU seconds that each of its parts carries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowqcd.io import ensembles


class Cost(NamedTuple):
  """CPU seconds in all, and at the pace of the median part: without the compilation that the first ones carry."""

  total: float
  steady: float


def of(store: ensembles.Ensemble) -> Cost:
  """Of an ensemble whose parts have the attribute cpu_seconds; parts need not be equally long."""
  seconds, rows = store.attributes("cpu_seconds"), np.array(store.part_lengths(store.names[0]))
  return Cost(float(seconds.sum()), float(np.median(seconds / rows) * rows.sum()))


def total(*costs: Cost) -> Cost:
  """Of several together."""
  return Cost(*(sum(parts) for parts in zip(*costs)))
