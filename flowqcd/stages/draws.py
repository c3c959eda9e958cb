"""More pseudofermion draws for flow samples that are stored already, and the weights from all draws together."""

from __future__ import annotations

import itertools
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from flowqcd import distributed, hosts
from flowqcd.analysis import weights
from flowqcd.io import ensembles
from flowqcd.models import joint
from flowqcd.runs import folder
from flowqcd.runs.folder import Run
from flowqcd.runs.progress import Progress
from flowqcd.stages import costs
from flowqcd.stages.costs import Cost
from flowqcd.types import Array, Key, Params

_SALT = 11

Estimate = Callable[[Params, Array, Key], joint.Determinant]
"""(params of the conditional model, u, key) -> the determinant by its draws."""


class Estimates(NamedTuple):
  """A model of pseudofermions in sampling: how many draws a configuration gets; (number, first) -> an estimate by these."""

  draws: int
  make: Callable[[int, int], Estimate]


class Joint(NamedTuple):
  """Of flow samples: log weights [N] of the joint model, and its draws [N, draws]."""

  log_w: np.ndarray
  log_draws: np.ndarray


def keys(run: Run, first: int, count: int) -> Key:
  """Those of the draws of flow samples first, first + 1, ..."""
  return distributed.item_keys(run.key(_SALT), 0, first, count)


def stored_with(store: ensembles.Ensemble, draws: int) -> int:
  """With how many draws each row of the ensemble `flow` is stored: as its first part is; `draws` where there is none."""
  return store.read_part(0, "log_draws").shape[1] if store.num_parts else draws


def fill(run: Run, store: ensembles.Ensemble, estimates: Estimates, params: Params, chunk: int) -> None:
  """Give all samples of the ensemble `flow` their draws, from where it stands; those beyond its own go to `flow-draws`.

  chunk: configurations vectorised at once on a device. Raises ValueError where there are more draws already.
  """
  wanted, own = estimates.draws, stored_with(store, estimates.draws)
  folder.require_growth("conditional.draws", wanted, own, str(store.path))
  if wanted == own and not hosts.shared(lambda: _has_more(store)):
    return
  more = run.store("flow-draws")
  there = np.isfinite(_all(store, more)).cumprod(axis=1).sum(axis=1)
  folder.require_growth("conditional.draws", wanted, int(there.min()), str(more.path))
  todo = [part for part in _parts(store) if there[part.start : part.stop].min() < wanted]
  progress, programs = Progress("samples with more draws", len(there), todo[0].start if todo else len(there)), {}
  for part in todo:
    first, clock = int(there[part.start : part.stop].min()), time.process_time()
    if first not in programs:
      programs[first] = distributed.parallel_map(estimates.make(wanted - first, first), chunk, num_shared=1)
    count = part.stop - part.start
    found = jax.device_get(programs[first](params, store.read_part(part.index, "u"), keys(run, part.start, count)))
    if not np.isfinite(found.log_draws).all():
      raise ValueError(f"samples {part.start} to {part.stop}: draws not finite (a solver stopped)")
    place = {"sample": part.start, "samples": count, "draw": first}
    # Rows are single draws: a part has as many of them for a sample as were missing.
    more.append(
      {"log_draw": found.log_draws.ravel()}, place | {"cpu_seconds": hosts.summed(time.process_time() - clock)}
    )
    progress.update(part.stop)


def read(store: ensembles.Ensemble) -> Joint:
  """Weights and draws of the ensemble `flow`, with as many draws as all its samples have."""
  if not _has_more(store):
    return Joint(store.read("log_w_joint"), store.read("log_draws"))
  draws = _all(store, ensembles.Ensemble.open(_more(store)))
  draws = draws[:, : int(np.isfinite(draws).all(axis=0).cumprod().sum())]
  return Joint(store.read("log_w") - store.read("log_det") + np.asarray(weights.log_mean_weight(draws)), draws)


def cost(store: ensembles.Ensemble) -> list[Cost]:
  """What draws beyond the samples' own cost, where there are any."""
  found = [ensembles.Ensemble.open(_more(store))] if _has_more(store) else []
  return [costs.of(more) for more in found if more.num_parts]


class _Part(NamedTuple):
  """A part of the ensemble of samples: which, and the range of its rows."""

  index: int
  start: int
  stop: int


def _parts(store: ensembles.Ensemble) -> list[_Part]:
  ends = np.cumsum([0, *store.part_lengths("log_w")]).tolist()
  return [_Part(index, *pair) for index, pair in enumerate(itertools.pairwise(ends))]


def _more(store: ensembles.Ensemble) -> pathlib.Path:
  return store.path.with_name("flow-draws")


def _has_more(store: ensembles.Ensemble) -> bool:
  return (_more(store) / "ensemble.json").exists()


def _all(store: ensembles.Ensemble, more: ensembles.Ensemble) -> np.ndarray:
  """Every draw of every sample, [N, most draws]; NaN where a sample has fewer. more: the ensemble `flow-draws`."""
  own, blocks = store.read("log_draws"), []
  for part, place in enumerate(zip(*(more.attributes(name).tolist() for name in ("sample", "samples", "draw")))):
    sample, samples, first = place
    blocks.append((sample, first, more.read_part(part, "log_draw").reshape(samples, -1)))
  width = max([own.shape[1], *(first + values.shape[1] for _, first, values in blocks)])
  draws = np.full((len(own), width), np.nan, own.dtype)
  draws[:, : own.shape[1]] = own
  for sample, first, values in blocks:
    # Samples that a repair has moved aside come again the same, since each has its own key.
    rows = draws[sample : sample + len(values), first : first + values.shape[1]]
    rows[:] = values[: len(rows)]
  return draws
