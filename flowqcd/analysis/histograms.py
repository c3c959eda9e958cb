"""Histograms of a reweighted ensemble against a Markov chain, bin by bin, and their residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from flowqcd.analysis import statistics, weights

_MIN_ENTRIES = 10  # Gaussian errors of a bin need about this many expected entries


class Panel(NamedTuple):
  """One observable of figure 2: values_flow [N] belong to the log weights, values_hmc [M]."""

  label: str
  values_flow: np.ndarray
  values_hmc: np.ndarray


class Comparison(NamedTuple):
  """Densities [bins] with bootstrap errors over edges [bins + 1].

  residuals2 [bins] is NaN where a bin does not count.
  """

  edges: np.ndarray
  density_flow: np.ndarray
  err_flow: np.ndarray
  density_hmc: np.ndarray
  err_hmc: np.ndarray
  residuals2: np.ndarray


class Chi2Summary(NamedTuple):
  """Sum of squared residuals, its p-value, and the Kolmogorov-Smirnov one against chi^2_1."""

  chi2: float
  num_bins: int
  dof: int
  p_value: float
  ks_p_value: float


def compare(
  values_flow: np.ndarray,
  log_w: np.ndarray,
  values_hmc: np.ndarray,
  bins: int | np.ndarray = 30,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> Comparison:
  """Bin probabilities of both ensembles, as densities p_b / width, and their squared residuals.

  residual^2 = (flow - hmc)^2 / (err_flow^2 + err_hmc^2), errors from bootstrap over configurations.
  values_flow [N] are reweighted with log_w [N]; values_hmc [M] must be thinned until independent.
  bins: a number of equal bins over the range of values_hmc, or edges. Probabilities are relative to
  all entries, so weight of the flow outside the range counts in its normalisation.

  A bin counts, that is has a residual, when at least 10 entries are expected in the smaller
  ensemble, min(M, N ESS) p_hmc >= 10. The rule does not look at the flow's own bin: one that the
  flow leaves empty shows as a large residual. arXiv:2208.03832, figures 2 and 3.
  """
  values_flow, values_hmc = np.asarray(values_flow), np.asarray(values_hmc)
  for name, values in (("flow", values_flow), ("hmc", values_hmc)):
    if values.ndim != 1 or not np.isfinite(values).all():
      raise ValueError(f"values of {name} must be finite and [N], got shape {values.shape}")
  log_w = weights.require_positive(log_w)
  edges = np.histogram_bin_edges(values_hmc, bins)
  even = np.zeros(len(values_hmc))
  p_flow, err_flow = _bin_probabilities(values_flow, log_w, edges, num_bootstrap, (seed, 0))
  p_hmc, err_hmc = _bin_probabilities(values_hmc, even, edges, num_bootstrap, (seed, 1))
  size = min(len(values_hmc), len(values_flow) * weights.ess(log_w))
  # A single bin that holds everything has no error, and nothing to compare.
  variance = err_flow**2 + err_hmc**2
  counted = (size * p_hmc >= _MIN_ENTRIES) & (variance > 0)
  residuals2 = np.full(len(p_hmc), np.nan)
  residuals2[counted] = (p_flow - p_hmc)[counted] ** 2 / variance[counted]
  width = np.diff(edges)
  return Comparison(edges, p_flow / width, err_flow / width, p_hmc / width, err_hmc / width, residuals2)


def compare_all(
  panels: Sequence[Panel],
  log_w: np.ndarray,
  bins: int = 30,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> tuple[Comparison, ...]:
  """`compare` for every panel, all flow values sharing the log weights [N]."""
  return tuple(compare(p.values_flow, log_w, p.values_hmc, bins, num_bootstrap, seed) for p in panels)


def residuals2(comparisons: Sequence[Comparison]) -> np.ndarray:
  """Squared residuals of all bins that count, of all comparisons, in one array."""
  pooled = np.concatenate([c.residuals2 for c in comparisons])
  return pooled[np.isfinite(pooled)]


def chi2_summary(squares: np.ndarray, num_histograms: int = 1) -> Chi2Summary:
  """Whether squared residuals of B bins of H histograms follow chi^2 with one degree of freedom.

  Both bin probabilities of a histogram sum to one, so their differences sum to zero: each histogram
  has one degree of freedom less than bins. The bootstrap variance p (1 - p) / N knows that already,
  hence each residual^2 has mean one and their sum has mean B, but is distributed like
  B / (B - H) chi^2_{B-H} (exactly so for equal bins); the p-value uses this. Different observables
  of the same configurations are correlated, which neither p-value knows.

  squares: [B], finite. Raises ValueError unless B > H.
  """
  from scipy import stats  # slow to import, and only needed here

  squares = np.asarray(squares)
  num, dof = len(squares), len(squares) - num_histograms
  if dof < 1 or not np.isfinite(squares).all():
    raise ValueError(f"need finite residuals of more bins than histograms, got {num} of {num_histograms}")
  total = float(squares.sum())
  p_value = float(special.chdtrc(dof, total * dof / num))
  ks_p_value = float(stats.kstest(squares, stats.chi2(1).cdf).pvalue)
  return Chi2Summary(total, num, dof, p_value, ks_p_value)


def _bin_probabilities(
  values: np.ndarray,
  log_w: np.ndarray,
  edges: np.ndarray,
  num_bootstrap: int,
  seed: tuple[int, int],
) -> statistics.Estimate:
  """Weighted fraction of entries in each bin, [bins], with bootstrap errors; NaN where a resample has no weight."""
  w = weights.shares(log_w)
  if len(w) != len(values):
    raise ValueError(f"{len(values)} values do not match {len(w)} log weights")
  # Like np.histogram: bins are closed on the left, the last one on both sides.
  index = np.searchsorted(edges, values, side="right") - 1
  index[values == edges[-1]] = len(edges) - 2
  features = np.zeros((len(w), len(edges)))
  features[:, -1] = w
  inside = np.flatnonzero((index >= 0) & (index < len(edges) - 1))
  features[inside, index[inside]] = w[inside]
  sums = statistics.bootstrap_sums(features, num_bootstrap, seed)
  # Where too few samples carry weight, some resamples have none, and errors are NaN: no bin counts.
  totals = np.where(sums[:, -1:] == 0, np.nan, sums[:, -1:])
  replicas = sums[:, :-1] / totals
  return statistics.Estimate(features[:, :-1].sum(axis=0), np.std(replicas, axis=0, ddof=1))
