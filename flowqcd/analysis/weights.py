"""Importance weights: effective sample size, log Z, reweighted means, and whether to trust them.

log_w is log p(x) - log q(x) for samples x of q, p up to a constant; -inf is a sample of weight 0.
Everything is computed in log space: only differences of log weights are exponentiated.

A weight with a sign or a phase has the complex log_w = ln |w| + i arg w. Means are then sum w O / sum w, complex, of which
the real part estimates a real mean; the ESS is |sum w|^2 / (N sum |w|^2), which falls with the square of the average phase:
it contains the sign problem. `average_phase` is that phase.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.analysis import statistics

Logs = TypeVar("Logs", jax.Array, np.ndarray)
"""Log weights, and what is computed of them by the same library."""

_MIN_EFFECTIVE = 10  # below, a bootstrap error is itself known to worse than about 25%


class WeightDiagnosis(NamedTuple):
  """What `diagnose` found; the weights can be trusted only if `messages` is empty."""

  num_samples: int
  ess: float
  max_share: float
  num_nan: int
  num_zero: int
  messages: tuple[str, ...]


def ess(log_w: Logs) -> Logs:
  """Effective sample size per configuration, |sum w|^2 / (N sum |w|^2), at least 1/N for positive weights, at most 1.

  log_w: [..., N], the last axis runs over samples; returns real [...]. JAX arrays stay in JAX and may be
  traced, NumPy arrays keep their precision. NaN if a log weight is NaN or +inf, or if all weights
  are zero. arXiv:2208.03832, section 3.2.
  """
  xp = _namespace(log_w)
  w = xp.exp(log_w - _top(log_w))
  return _square(xp.sum(w, axis=-1)) / (log_w.shape[-1] * xp.sum(_square(w), axis=-1))


def log_mean_weight(log_w: Logs) -> Logs:
  """Log of the mean weight, log (1/N) sum w, an estimate of log Z for normalised q.

  log_w: [..., N], the last axis runs over samples; returns [...]. JAX or NumPy, like `ess`. NaN if
  a log weight is NaN or +inf, -inf if all weights are zero. Complex, with the phase of the mean, for complex log_w.
  """
  xp = _namespace(log_w)
  top = _top(log_w)
  log_mean = top[..., 0] + xp.log(xp.mean(xp.exp(log_w - top), axis=-1))
  return xp.where(xp.all(xp.real(log_w) == -xp.inf, axis=-1), -xp.inf, log_mean)


def log_z(log_w: np.ndarray) -> statistics.Estimate:
  """Log of the partition function, log mean w, with error sqrt((1/ESS - 1) / N).

  log_w: [N]. Absolute only if q is normalised and p keeps its constants. The error is the delta
  method's, var(log mean w) = var(w) / (N mean(w)^2). The value is biased by -error^2 / 2. Raises ValueError for
  complex log_w, whose error has two parts: see `log_z_jackknife`.
  """
  log_w = _checked(require_positive(log_w))
  # ESS of equal weights may exceed 1 by rounding.
  variance = max(1 / ess(log_w) - 1, 0.0) / len(log_w)
  return statistics.Estimate(np.asarray(log_mean_weight(log_w))[()], np.sqrt(variance))


def log_z_jackknife(log_w: np.ndarray) -> statistics.Estimate:
  """`log_z` with the jackknife error; inf when a single sample carries all the weight.

  log_w: [N]. Agrees with `log_z` once N ESS is large; a disagreement says it is not. For complex log_w value and error are
  complex: log |Z| and the phase of Z, each with its error.
  """
  log_w = _checked(log_w)
  rest = _leave_one_out(_scaled(log_w))
  value = np.asarray(log_mean_weight(log_w))[()]
  if not rest.all():
    return statistics.Estimate(value, np.asarray(np.inf))
  # Divided by their sum, so that no phase is near the cut of the logarithm.
  return statistics.Estimate(value, _by_parts(statistics.jackknife_error, np.log(rest / rest.sum())))


def average_phase(log_w: np.ndarray) -> statistics.Estimate:
  """<w>/<|w|>, the mean of e^{i arg w} in the ensemble of |w|, with the jackknife error; complex for complex log_w.

  log_w: [N]. Its modulus is the strength of the sign problem: 1 without one, and means are lost where it is within its
  error of zero. Real and imaginary part of the error are those of the parts. Raises ValueError like `reweighted_mean`.
  """
  log_w = _checked(log_w)
  w = _scaled(log_w)
  rest = _leave_one_out(np.abs(w))
  if not rest.all():
    raise ValueError("a single sample carries all the weight: no jackknife error")
  replicas = _leave_one_out(w) / rest
  return statistics.Estimate(w.sum() / np.abs(w).sum(), _by_parts(statistics.jackknife_error, replicas))


def ess_error(log_w: np.ndarray) -> float:
  """Jackknife error of `ess`, a lower bound when rare large weights have not been seen yet.

  log_w: [N].
  """
  log_w = _checked(log_w)
  w = _scaled(log_w)
  square = _leave_one_out(np.asarray(_square(w)))
  if not square.all():
    return float("inf")
  replicas = np.asarray(_square(_leave_one_out(w))) / ((len(w) - 1) * square)
  return float(statistics.jackknife_error(replicas))


def reweighted_mean(
  log_w: np.ndarray, observable: np.ndarray, num_bootstrap: int = 1000, seed: int = 0
) -> statistics.Estimate:
  """Mean in the target, sum w O / sum w, with bootstrap error over configurations.

  log_w: [N], observable: [N, ...] real or complex; value and error have shape [...]. Each resample
  normalises its own weights. For complex O or log_w the real and imaginary parts of the error are the errors
  of the real and imaginary parts; with complex weights the real part estimates a mean that is known to be real.
  """
  w, features = _weighted(log_w, observable)
  sums = statistics.bootstrap_sums(np.column_stack([w, features]), num_bootstrap, seed)
  if not sums[:, 0].all():
    raise ValueError("some bootstrap resamples have zero total weight: too few samples carry weight")
  replicas = sums[:, 1:] / sums[:, :1]
  error = _by_parts(lambda x: np.std(x, axis=0, ddof=1), replicas)
  shape = np.shape(observable)[1:]
  return statistics.Estimate((features.sum(0) / w.sum()).reshape(shape), error.reshape(shape))


def reweighted_mean_jackknife(log_w: np.ndarray, observable: np.ndarray) -> statistics.Estimate:
  """`reweighted_mean` with the jackknife error over configurations; deterministic.

  log_w: [N], observable: [N, ...] real or complex; the result is complex where either is.
  """
  w, features = _weighted(log_w, observable)
  rest = _leave_one_out(w)
  if not rest.all():
    raise ValueError("a single sample carries all the weight: no jackknife error")
  error = _by_parts(statistics.jackknife_error, _leave_one_out(features) / rest[:, None])
  shape = np.shape(observable)[1:]
  return statistics.Estimate((features.sum(0) / w.sum()).reshape(shape), error.reshape(shape))


def shares(log_w: np.ndarray) -> np.ndarray:
  """Normalised weights w / sum w, shape [N], complex for complex log_w; raises ValueError like `reweighted_mean`."""
  w = _scaled(_checked(log_w))
  return w / w.sum()


def require_positive(log_w: np.ndarray) -> np.ndarray:
  """log_w [N] in double precision; raises ValueError for complex log weights, where probabilities are needed."""
  if np.iscomplexobj(log_w):
    raise ValueError("log weights must be real here, not complex: densities and single errors need positive weights")
  return np.asarray(log_w, float)


def diagnose(log_w: np.ndarray) -> WeightDiagnosis:
  """Whether estimates from these weights can be trusted; never raises for bad weights.

  log_w: [N]. Messages, each sufficient to distrust:
  - log weights that are NaN or +inf (then ess and max_share are NaN), or all weights zero;
  - 'dominated by one sample': the largest weight gives more than half of sum w^2. The share s of
    the largest weight gives s^2 N ESS of it, and past one half the ESS and every error derived from
    the weights are that one sample's, whatever N;
  - fewer than 10 effective samples, N ESS < 10: errors from so few are themselves unknown.
  A flow that misses a region altogether shows none of these; compare with a Markov chain. For complex log_w the ESS is
  that with phases, so that a sign problem shows as few effective samples; max_share is a share of sum |w|.
  """
  log_w = _as_numbers(log_w)
  if log_w.ndim != 1 or log_w.size < 1:
    raise ValueError(f"log_w must be [N] with N at least 1, got shape {log_w.shape}")
  num, num_nan = len(log_w), int(np.isnan(log_w).sum())
  size, moduli = float(ess(log_w)), np.real(log_w)
  # exp(top - log sum |w|); NaN wherever the ESS is.
  max_share = float(np.exp(_top(moduli)[0] - log_mean_weight(moduli) - np.log(num)))
  messages = []
  if num_nan:
    messages.append(f"{num_nan} of {num} log weights are NaN")
  if np.isposinf(moduli).any():
    messages.append(f"{int(np.isposinf(moduli).sum())} of {num} log weights are +inf")
  if np.isneginf(moduli).all():
    messages.append("all weights are zero")
  if max_share**2 * num * float(ess(moduli)) > 0.5:
    messages.append(f"dominated by one sample: {max_share:.1%} of the weight is in one of {num}")
  if num * size < _MIN_EFFECTIVE:
    messages.append(f"only {num * size:.1f} effective samples out of {num}")
  num_zero = int(np.isneginf(moduli).sum())
  return WeightDiagnosis(num, size, max_share, num_nan, num_zero, tuple(messages))


def _namespace(x: jax.Array | np.ndarray) -> Any:
  return jnp if isinstance(x, jax.Array) else np


def _square(w: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
  """|w|^2."""
  xp = _namespace(w)
  return xp.real(w) ** 2 + xp.imag(w) ** 2 if xp.iscomplexobj(w) else w * w


def _top(log_w: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
  """Largest ln |w|, real [..., 1]; NaN where it is not finite, so that the result is NaN too."""
  xp = _namespace(log_w)
  top = xp.max(xp.real(log_w), axis=-1, keepdims=True)
  return xp.where(xp.isfinite(top), top, xp.nan)


def _scaled(log_w: np.ndarray) -> np.ndarray:
  """Weights over the largest modulus, [N]."""
  return np.exp(log_w - np.real(log_w).max())


def _as_numbers(log_w: np.ndarray) -> np.ndarray:
  return np.asarray(log_w, complex if np.iscomplexobj(log_w) else float)


def _checked(log_w: np.ndarray) -> np.ndarray:
  log_w = _as_numbers(log_w)
  if log_w.ndim != 1 or log_w.size < 2:
    raise ValueError(f"log_w must be [N] with N at least 2, got shape {log_w.shape}")
  if np.isnan(log_w).any() or not np.isfinite(np.real(log_w).max()) or not np.isfinite(np.imag(log_w)).all():
    raise ValueError("log weights must not be NaN or +inf, nor all -inf; see weights.diagnose")
  return log_w


def _weighted(log_w: np.ndarray, observable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Normalised weights [N] and weighted observable [N, M]."""
  w = shares(log_w)
  observable = np.asarray(observable)
  if len(observable) != len(w):
    raise ValueError(f"{len(observable)} measurements do not match {len(w)} weights")
  return w, w[:, None] * observable.reshape(len(w), -1)


def _leave_one_out(x: np.ndarray) -> np.ndarray:
  """Sums over all but entry i, [N, ...]; from both ends, since total - x[i] cancels."""
  zero = np.zeros_like(x[:1])
  before = np.concatenate([zero, np.cumsum(x[:-1], axis=0)])
  after = np.concatenate([np.cumsum(x[:0:-1], axis=0)[::-1], zero])
  return before + after


def _by_parts(error, replicas: np.ndarray) -> np.ndarray:
  if np.iscomplexobj(replicas):
    return error(np.real(replicas)) + 1j * error(np.imag(replicas))
  return error(replicas)
