"""Whether error bars can be believed: warnings for reports, with thresholds from the table in docs/coverage.md."""

from __future__ import annotations

import numpy as np

from flowqcd.analysis import weights

_MAX_LOG_Z_ERROR = 0.07
"""Where (1/ESS - 1)/N is above its square, errors of observables along ln w cover less than 60% instead of 68%."""
_MIN_FOURTH = 100
"""(sum w^2)^2 / sum w^4 below which the error of the ESS covers less than 58%."""
_MIN_TAUS = 50
"""N / tau_int below which errors of chains cover less than 63%, and tau_int itself is uncertain by a third."""
_MIN_ESS_CHI2 = 0.5
"""Errors of bins with few weights are no Gaussian ones: at an ESS of 0.3 chi^2 has p < 0.046 in 12% of runs, at 1 in 5%."""
_MIN_TAUS_EACH = 6
"""Entries of a stream in units of tau_int; in shorter ones the window ends before the correlation does."""


def of_weights(log_w: np.ndarray) -> tuple[str, ...]:
  """Why errors of reweighted means and of ln Z may be too small, besides what `weights.diagnose` says. log_w: [N]."""
  log_w = np.asarray(log_w, float)
  size, num = float(weights.ess(log_w)), len(log_w)
  error = np.sqrt(max(1 / size - 1, 0.0) / num)
  if not error > _MAX_LOG_Z_ERROR:
    return ()
  return (
    f"errors of reweighted means and of ln Z may be too small: {num * size:.0f} effective samples of ESS {size:.2g} give "
    f"ln Z to {error:.2g} only, and errors cover what they should below {_MAX_LOG_Z_ERROR}",
  )


def of_ess(log_w: np.ndarray) -> tuple[str, ...]:
  """Why the ESS may be too large by more than its error. log_w: [N]."""
  w = weights.shares(log_w) ** 2
  count = float(w.sum() ** 2 / np.sum(w * w))
  if count >= _MIN_FOURTH:
    return ()
  return (
    f"the ESS may be lower than its error allows: {count:.0f} samples decide what is known of its spread, and "
    f"{_MIN_FOURTH} are needed",
  )


def of_chi2(log_w: np.ndarray) -> tuple[str, ...]:
  """Why the p-value of chi^2 over weighted histograms may be too small. log_w: [N]."""
  size = float(weights.ess(np.asarray(log_w, float)))
  if size >= _MIN_ESS_CHI2:
    return ()
  return (
    f"chi^2 of histograms is too large too often with weights of ESS {size:.2g}; its p-value is right above "
    f"{_MIN_ESS_CHI2}, and that of Kolmogorov and Smirnov here too",
  )


def of_chain(shape: tuple[int, int], tau_int: float) -> tuple[str, ...]:
  """Why errors of a chain may be too small. shape: streams and entries of each; tau_int in entries, 1/2 + sum rho."""
  streams, num = shape
  if streams * num < _MIN_TAUS * tau_int:
    return (
      f"errors of chains may be too small: {streams * num / tau_int:.0f} tau_int in all, and {_MIN_TAUS} are needed",
    )
  if num < _MIN_TAUS_EACH * tau_int:
    return (
      f"errors of chains may be too small: streams of {num / tau_int:.1f} tau_int, and {_MIN_TAUS_EACH} each are needed",
    )
  return ()
