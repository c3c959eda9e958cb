"""Errors of Monte Carlo averages: bootstrap, jackknife, autocorrelation, and the health of a chain.

Convention throughout: tau_int = 1/2 + sum_{t>=1} rho(t), so 1/2 for uncorrelated data, and
error(mean)^2 = 2 tau_int var / N (Wolff, hep-lat/0306017). Codes that use 1 + 2 sum rho print
twice this tau_int.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

if TYPE_CHECKING:
  import pyerrors

_RESAMPLES_AT_ONCE = 32  # resamples per matrix product: N=65k then needs 16 MB, not 500
MAX_R_HAT = 1.1  # Gelman et al., Bayesian Data Analysis (3rd ed.), section 11.5
_MIN_REPLICA_P = 1e-6  # streams of one ensemble disagree this much once in a million analyses


class Estimate(NamedTuple):
  """A value and its one-sigma error; for complex values the parts carry the errors of the parts."""

  value: np.ndarray
  error: np.ndarray


class GammaResult(NamedTuple):
  """Result of the Gamma method; `replica_p` is the probability that the streams agree this badly.

  tau_int = 1/2 + sum rho in units of one entry of the series; `window` is where the sum stops.
  """

  mean: float
  error: float
  error_error: float
  tau_int: float
  tau_int_error: float
  window: int
  replica_p: float


class ChainDiagnosis(NamedTuple):
  """What `chain_diagnosis` found; the chain is healthy if and only if `messages` is empty."""

  acceptance: np.ndarray
  never_accepted: tuple[int, ...]
  never_moved: tuple[int, ...]
  longest_rejection: np.ndarray
  r_hat: float
  messages: tuple[str, ...]


class ChainError(ValueError):
  """A Markov chain whose averages would mislead."""


class FrozenStreamsError(ChainError):
  """Some streams never changed, so they carry no estimate of their own fluctuation."""


class InconsistentStreamsError(ChainError):
  """Streams of one ensemble have means that their own fluctuations cannot explain."""


class UnhealthyChainError(ChainError):
  """`require_healthy` found at least one fault."""


def bootstrap_sums(features: np.ndarray, num_bootstrap: int = 1000, seed: int | tuple[int, ...] = 0) -> np.ndarray:
  """Sums over bootstrap resamples, S_b = sum_i n_bi f_i with multinomial counts n_b.

  features: [N, M], real or complex. Returns [num_bootstrap, M]. Every statistic that is a function
  of sums (means, reweighted means, histograms) follows from these without another loop.
  """
  if features.ndim != 2 or not features.size:
    raise ValueError(f"features must be [N, M] and not empty, got shape {features.shape}")
  if num_bootstrap < 2:
    raise ValueError(f"num_bootstrap must be at least 2, got {num_bootstrap}")
  rng = np.random.default_rng(seed)
  num = len(features)
  sums = np.empty((num_bootstrap, features.shape[1]), np.result_type(features, float))
  for start in range(0, num_bootstrap, _RESAMPLES_AT_ONCE):
    block = sums[start : start + _RESAMPLES_AT_ONCE]
    draws = (rng.integers(num, size=num) for _ in block)
    counts = np.stack([np.bincount(draw, minlength=num) for draw in draws])
    block[...] = counts.astype(float) @ features
  return sums


def bootstrap(
  data: np.ndarray,
  statistic: Callable[[np.ndarray], np.ndarray],
  num_bootstrap: int = 1000,
  seed: int = 0,
  block: int = 1,
) -> Estimate:
  """Bootstrap error of any statistic: the standard deviation of statistic(resample).

  data: [N, ...]; statistic maps [n, ...] to a real scalar or array. Resamples consecutive blocks of
  `block` entries, so autocorrelated data needs block >> tau_int; entries past the last whole block
  are not resampled. The value is statistic(data). Efron (1979); Kuensch (1989) for blocks.
  """
  data = np.asarray(data)
  starts = block * np.arange(_num_blocks(len(data), block))
  rng = np.random.default_rng(seed)
  replicas = []
  for _ in range(num_bootstrap):
    picked = rng.choice(starts, size=len(starts))
    replicas.append(statistic(data[(picked[:, None] + np.arange(block)).ravel()]))
  return Estimate(np.asarray(statistic(data)), np.std(replicas, axis=0, ddof=1))


def jackknife(data: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], block: int = 1) -> Estimate:
  """Jackknife error, sqrt((B-1)/B sum_b (s_b - mean s)^2) over B deleted blocks.

  data: [N, ...]; statistic maps [n, ...] to a real scalar or array; entries past the last whole
  block are dropped. The value is statistic(data), without bias correction. Tukey (1958).
  """
  data = np.asarray(data)
  num_blocks = _num_blocks(len(data), block)
  data = data[: num_blocks * block]
  deleted = [np.arange(b * block, (b + 1) * block) for b in range(num_blocks)]
  replicas = np.stack([statistic(np.delete(data, gone, axis=0)) for gone in deleted])
  return Estimate(np.asarray(statistic(data)), jackknife_error(replicas))


def jackknife_error(replicas: np.ndarray) -> np.ndarray:
  """Jackknife error from leave-one-out values, sqrt((B-1) var_B(s_b)).

  replicas: real [B, ...]. Returns [...].
  """
  return np.sqrt(len(replicas) - 1) * np.std(replicas, axis=0)


def gamma_method(series: np.ndarray, window_s: float = 2.0) -> GammaResult:
  """Mean, error and tau_int of a Markov chain by the Gamma method with automatic windowing.

  error^2 = 2 tau_int var / N, tau_int = 1/2 + sum_{t=1}^W rho(t). series: real [streams, n] or [n],
  streams being replicas of one ensemble. window_s is Wolff's parameter S, tau ~ S tau_int.
  tau_int is never below 1/2. Wolff, hep-lat/0306017; computed by pyerrors.

  Fluctuations are about the mean of all streams. About each stream's own mean, Gamma(t) would be
  low by 2 tau_int var / n, and many short streams would have errors far too small. Streams that
  have not forgotten where they started raise tau_int then; `replica_p` tells whether they agree.

  Raises FrozenStreamsError if a stream is constant, ValueError for other shapes, fewer than 8
  entries a stream, or values that are not finite.
  """
  series = _checked_series(series)
  frozen = _constant_streams(series)
  if frozen:
    raise FrozenStreamsError(
      f"streams {_listed(frozen)} of {len(series)} are constant: they never moved, or the "
      "observable does not vary; no error can be given"
    )
  series = series.astype(float)
  mean = float(series.mean())
  obs = _windowed(series - mean, window_s)
  return GammaResult(
    mean,
    float(obs.dvalue),
    float(obs.ddvalue),
    float(obs.e_tauint["chain"]),
    float(obs.e_dtauint["chain"]),
    int(obs.e_windowsize["chain"]),
    _replica_p(series, window_s),
  )


def _windowed(deviations: np.ndarray, window_s: float) -> pyerrors.Obs:
  """pyerrors' Gamma method of deviations [streams, n] from means that are taken already."""
  import pyerrors  # slow to import, and only needed here

  names = [f"chain|{r:06d}" for r in range(len(deviations))]
  obs = pyerrors.Obs(list(deviations), names, means=[0.0] * len(names))
  obs.gamma_method(S=window_s)
  return obs


def autocorrelation(series: np.ndarray) -> np.ndarray:
  """rho(t) = Gamma(t)/Gamma(0) of the fluctuations about the mean of all streams, as in gamma_method: [n // 2].

  Gamma(t) is the mean over all pairs of entries t apart in one stream. series: real [streams, n] or [n]. Raises
  FrozenStreamsError if nothing varies, ValueError for other shapes, fewer than 8 entries a stream, or values that are not
  finite.
  """
  series = _checked_series(series)
  if not np.ptp(series, axis=1).any():
    raise FrozenStreamsError("all entries of a stream are equal: there is no autocorrelation to speak of")
  n = series.shape[1]
  # Padded with zeros, so that the ends do not meet.
  spectrum = np.fft.rfft(series - series.mean(), 2 * n, axis=1)
  pairs = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, : n // 2].sum(axis=0)
  gamma = pairs / np.arange(n, n - n // 2, -1)
  return gamma / gamma[0]


def chain_mean(series: np.ndarray) -> Estimate:
  """Mean of a Markov chain with the error of the Gamma method.

  series: real [streams, n]. Raises FrozenStreamsError, or InconsistentStreamsError when the stream
  means scatter more than their fluctuation allows (probability below 1e-6): streams stuck in
  different places look independent and would give a tiny error.
  """
  result = gamma_method(series)
  if result.replica_p < _MIN_REPLICA_P:
    means = ", ".join(f"{m:.6g}" for m in np.atleast_2d(series).mean(axis=1))
    raise InconsistentStreamsError(
      f"stream means {means} disagree beyond their fluctuation (p = {result.replica_p:.1e}): the "
      "streams have not forgotten where they started; thermalise longer or run longer"
    )
  return Estimate(np.asarray(result.mean), np.asarray(result.error))


def mean_of_streams(series: np.ndarray) -> Estimate:
  """Mean with the error from the scatter of stream means, and Student's factor for few streams.

  series: real or bool [streams, n] with at least two streams, which must be independent; entries need not be. One error
  covers 68.3% and not, with R streams, what t_{R-1} has within one.
  """
  means = np.mean(series, axis=1)
  if len(means) < 2:
    raise ValueError("the scatter of stream means needs at least two streams")
  error = np.std(means, ddof=1) / np.sqrt(len(means))
  return Estimate(means.mean(), error * special.stdtrit(len(means) - 1, special.ndtr(1)))


def thin(series: np.ndarray, every: int) -> np.ndarray:
  """Keep every `every`-th entry of the last axis, the last of each group.

  series: [..., n]. Returns [..., n // every].
  """
  if not 1 <= every <= series.shape[-1]:
    raise ValueError(f"every must be between 1 and the length {series.shape[-1]}, got {every}")
  return series[..., every - 1 :: every]


def independent_every(series: Sequence[np.ndarray]) -> int:
  """How far apart entries of all series [streams, n] are independent as far as histograms can tell: twice the largest
  tau_int, at least 1, which it is of no series."""
  return max(1, round(2 * max((gamma_method(s).tau_int for s in series), default=0.0)))


def num_independent(num_samples: int, tau_int: float) -> float:
  """Independent samples among autocorrelated ones, N / (2 tau_int), tau_int = 1/2 + sum rho."""
  if not tau_int > 0:
    raise ValueError(f"tau_int must be positive, got {tau_int}")
  return num_samples / (2 * tau_int)


def split_r_hat(series: np.ndarray) -> float:
  """Gelman-Rubin statistic of half streams, sqrt(((n-1)/n W + B/n) / W).

  series: real [streams, n]. W is the mean variance within half streams of length n, B is n times
  the variance of their means. 1 for a converged chain, inf when nothing varies within the halves
  but their means differ, NaN when nothing varies at all. Gelman et al. (2013), section 11.4.
  """
  series = _checked_series(series)
  half = series.shape[1] // 2
  parts = np.concatenate([series[:, :half], series[:, -half:]])
  within = np.var(parts, axis=1, ddof=1).mean()
  between = half * np.var(parts.mean(axis=1), ddof=1)
  if len(_constant_streams(parts)) == len(parts):
    return float("nan") if len(_constant_streams(parts.reshape(1, -1))) else float("inf")
  return float(np.sqrt((half - 1) / half + between / (half * within)))


def chain_diagnosis(accepts: np.ndarray, series: np.ndarray) -> ChainDiagnosis:
  """Faults of a Markov chain that its error bar would not show.

  accepts: bool [streams, n], series: real [streams, n], the same observable along each stream.
  Reports streams that accepted nothing, streams whose series is constant, a run of rejections
  longer than half a stream, and a split R-hat above 1.1 (streams, or the two halves of one, that
  sample different distributions).
  """
  accepts = np.atleast_2d(np.asarray(accepts)).astype(bool)
  series = _checked_series(series)
  if accepts.shape != series.shape:
    raise ValueError(f"accepts {accepts.shape} and series {series.shape} must have the same shape")
  never_accepted = tuple(int(s) for s in np.flatnonzero(~accepts.any(axis=1)))
  never_moved = _constant_streams(series)
  longest = np.array([_longest_run(~row) for row in accepts])
  stalled = [int(s) for s in np.flatnonzero(2 * longest > series.shape[1])]
  stalled = [s for s in stalled if s not in never_accepted]
  r_hat = split_r_hat(series)
  messages = []
  if never_accepted:
    messages.append(f"streams {_listed(never_accepted)} accepted no proposal")
  if never_moved:
    messages.append(f"streams {_listed(never_moved)} never moved: their series is constant")
  if stalled:
    messages.append(f"streams {_listed(stalled)} rejected for more than half their length in a row")
  if r_hat > MAX_R_HAT:
    messages.append(f"split R-hat is {r_hat:.3g}, above {MAX_R_HAT}: streams sample different distributions")
  return ChainDiagnosis(accepts.mean(axis=1), never_accepted, never_moved, longest, r_hat, tuple(messages))


def require_healthy(diagnosis: ChainDiagnosis) -> None:
  """Raise UnhealthyChainError, naming the streams, unless the diagnosis is without messages."""
  if diagnosis.messages:
    raise UnhealthyChainError("; ".join(diagnosis.messages))


def _num_blocks(num: int, block: int) -> int:
  if block < 1 or num < 2 * block:
    raise ValueError(f"need at least two blocks, got {num} entries in blocks of {block}")
  return num // block


def _checked_series(series: np.ndarray) -> np.ndarray:
  series = np.atleast_2d(np.asarray(series))
  if series.ndim != 2 or np.iscomplexobj(series) or series.shape[1] < 8:
    raise ValueError(f"series must be real [streams, n] with n at least 8, got shape {series.shape} of {series.dtype}")
  if not np.isfinite(series).all():
    raise ValueError("series holds values that are not finite")
  return series if series.dtype.kind == "f" else series.astype(float)


def _constant_streams(series: np.ndarray) -> tuple[int, ...]:
  """Streams that vary by no more than rounding of the series' own precision."""
  rounding = 16 * np.finfo(series.dtype).eps * np.abs(series).max(axis=1)
  return tuple(int(s) for s in np.flatnonzero(np.ptp(series, axis=1) <= rounding))


def _replica_p(series: np.ndarray, window_s: float) -> float:
  """p-value of chi^2 = sum_r (mean_r - mean)^2 / variance, R-1 degrees; hep-lat/0306017 eq. 30.

  The variance C / n of a stream's mean is from fluctuations about each stream's own mean, which know nothing of the other
  streams. Their Gamma(t) is low by C / n, so that the sum up to window W gives C (1 - (2 W + 1) / n).
  """
  streams, n = series.shape
  if streams == 1:
    return 1.0
  means = series.mean(axis=1)
  obs = _windowed(series - means[:, None], window_s)
  window = int(obs.e_windowsize["chain"])
  # Before pyerrors' own correction, which is for one stream.
  tau_int = obs.e_n_tauint["chain"][window]
  variance = 2 * tau_int * np.var(series, axis=1).mean() / (n - 2 * window - 1)
  return float(special.chdtrc(streams - 1, np.sum((means - means.mean()) ** 2) / variance))


def _longest_run(flags: np.ndarray) -> int:
  edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
  return int(np.max(edges[1::2] - edges[::2], initial=0))


def _listed(streams: tuple[int, ...] | list[int]) -> str:
  return ", ".join(str(s) for s in streams)
