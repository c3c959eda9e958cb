"""How often the truth lies within error bars, by repeating whole analyses of data whose truth is known.

A simulation draws one data set and analyses it as reports do: rng -> {quantity: Trial}. Where it knows an answer only as a
p-value, the trial is the pull of that p-value, so that "within one error" is p > 0.317.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import signal, stats

from flowqcd.analysis import histograms, statistics, trust, weights


class Trial(NamedTuple):
  """What one analysis found, what is true, and whether the analysis warned of its own error."""

  value: float
  error: float
  truth: float
  warned: bool = False


Simulation = Callable[[np.random.Generator], dict[str, Trial]]


class Coverage(NamedTuple):
  """Of many trials of one quantity.

  inside_68, inside_95: fractions within one and within two errors, 0.683 and 0.954 for Gaussian errors; by_seed: the first
  of them for each seed. bias: mean(value - truth) in units of the scatter of values; error_ratio: root mean square error
  over that scatter. warned: fraction of trials with a warning; unwarned_68: inside_68 of the others, NaN without any.
  """

  quantity: str
  num: int
  inside_68: float
  inside_95: float
  by_seed: tuple[float, ...]
  bias: float
  error_ratio: float
  warned: float
  unwarned_68: float


def measure(simulation: Simulation, repetitions: int, seeds: int, salt: int = 0) -> list[Coverage]:
  """Coverage of every quantity of a simulation, from `repetitions` data sets of each seed 0 .. seeds - 1.

  salt: sets the random numbers of one simulation apart from those of another.

  Raises ValueError for less than two repetitions, or no seed.
  """
  if repetitions < 2 or seeds < 1:
    raise ValueError(f"coverage needs at least 2 repetitions and a seed, not {repetitions}, {seeds}")
  generators = [np.random.default_rng((salt, seed)) for seed in range(seeds)]
  trials = [[simulation(rng) for _ in range(repetitions)] for rng in generators]
  return [_summary(name, np.array([[t[name] for t in row] for row in trials], float)) for name in trials[0][0]]


def _summary(name: str, trials: np.ndarray) -> Coverage:
  """trials: [seeds, repetitions, fields of Trial]."""
  value, error, truth, warned = np.moveaxis(trials, -1, 0)
  # Not a quotient: an error of zero covers nothing but the truth itself.
  off = np.abs(value - truth)
  within = off <= error
  scatter = float(np.std(value)) or np.nan
  quiet = warned == 0
  return Coverage(
    name,
    value.size,
    float(within.mean()),
    float((off <= 2 * error).mean()),
    tuple(map(float, within.mean(axis=1))),
    float(np.mean(value - truth)) / scatter,
    float(np.sqrt(np.mean(error**2))) / scatter,
    float(warned.mean()),
    float(within[quiet].mean()) if quiet.any() else float("nan"),
  )


class Weighted(NamedTuple):
  """Samples with weights: log_w [N], observables [N, 2], and the truth: E w is one, so ln Z is zero."""

  log_w: np.ndarray
  observables: np.ndarray
  means: tuple[float, float]
  ess: float


def gaussian_weights(rng: np.random.Generator, ess: float, num: int) -> Weighted:
  """Gaussian log weights: x of N(0, 1) reweighted to N(s, 1), s^2 = -ln ESS. Observables: x, as far along with ln w as any
  can be, and an independent normal number."""
  s = np.sqrt(-np.log(ess))
  x, y = rng.normal(size=(2, num))
  return Weighted(s * x - s * s / 2, np.stack([x, y], axis=1), (s, 0.0), ess)


def power_weights(rng: np.random.Generator, index: float, num: int) -> Weighted:
  """Weights of density ~ w^{-1-a}, a > 2 the index: ESS = a(a-2)/(a-1)^2, and no moments from the a-th on.

  w ~ u^{-1/a} of uniform u. Observables: u, of mean (a-1)/(2a-1), and an independent normal number.
  """
  u, y = 1 - rng.random(num), rng.normal(size=num)
  log_w = -np.log(u) / index - np.log(index / (index - 1))
  ess = index * (index - 2) / (index - 1) ** 2
  return Weighted(log_w, np.stack([u, y], axis=1), ((index - 1) / (2 * index - 1), 0.0), ess)


def ar1(rng: np.random.Generator, tau_int: float, shape: tuple[int, ...]) -> np.ndarray:
  """x_t = a x_{t-1} + e_t along the last axis, stationary with unit variance, a = (2 tau_int - 1)/(2 tau_int + 1)."""
  a = (2 * tau_int - 1) / (2 * tau_int + 1)
  noise = rng.normal(size=shape)
  noise[..., 1:] *= np.sqrt(1 - a * a)
  return np.asarray(signal.lfilter([1.0], [1.0, -a], noise, axis=-1))


def _trial(estimate: statistics.Estimate, truth: float, warned: bool = False) -> Trial:
  """Of an estimate of one number."""
  return Trial(float(estimate.value), float(estimate.error), truth, warned)


def weighted(draw: Callable[[np.random.Generator], Weighted], num_bootstrap: int = 0) -> Simulation:
  """Everything that reports derive from weights; means with bootstrap errors too where there is a number of resamples."""

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    data = draw(rng)
    warned = bool(weights.diagnose(data.log_w).messages + trust.of_weights(data.log_w))
    jackknife = weights.reweighted_mean_jackknife(data.log_w, data.observables)
    log_z, size = weights.log_z(data.log_w), float(weights.ess(data.log_w))
    of_ess = warned or bool(trust.of_ess(data.log_w))
    trial = lambda e, i: Trial(e.value[i], e.error[i], data.means[i], warned)
    found = {"mean along ln w": trial(jackknife, 0), "mean of another": trial(jackknife, 1)}
    if num_bootstrap:
      mean = weights.reweighted_mean(data.log_w, data.observables, num_bootstrap, int(rng.integers(2**32)))
      found |= {"mean along ln w, bootstrap": trial(mean, 0), "mean of another, bootstrap": trial(mean, 1)}
    return found | {
      "ln Z": _trial(log_z, 0.0, warned),
      "ln Z, jackknife": _trial(weights.log_z_jackknife(data.log_w), 0.0, warned),
      "ESS": Trial(size, weights.ess_error(data.log_w), data.ess, of_ess),
    }

  return one


def chain(tau_int: float, streams: int, num: int) -> Simulation:
  """The Gamma method on AR(1) streams of `num` entries each."""

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    series = ar1(rng, tau_int, (streams, num))
    found = statistics.gamma_method(series)
    warned = bool(trust.of_chain(series.shape, found.tau_int))
    return {
      "mean of a chain": Trial(found.mean, found.error, 0.0, warned),
      "tau_int": Trial(found.tau_int, found.tau_int_error, tau_int, warned),
    }

  return one


def cost_ratio(tau_int: float, other: float, streams: int, num: int) -> Simulation:
  """tau_int of one chain over that of another, with relative errors added in quadrature."""

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    shape = (streams, num)
    a, b = (statistics.gamma_method(ar1(rng, tau, shape)) for tau in (tau_int, other))
    ratio = a.tau_int / b.tau_int
    error = ratio * np.hypot(a.tau_int_error / a.tau_int, b.tau_int_error / b.tau_int)
    warned = bool(trust.of_chain(shape, a.tau_int) + trust.of_chain(shape, b.tau_int))
    return {"ratio of two tau_int": Trial(ratio, error, tau_int / other, warned)}

  return one


def difference(ess: float, num: int, tau_int: float, streams: int, length: int) -> Simulation:
  """Flow against chain, in units of both errors: the same observable, along ln w and not."""

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    data = gaussian_weights(rng, ess, num)
    flow = weights.reweighted_mean_jackknife(data.log_w, data.observables)
    series = ar1(rng, tau_int, (streams, length))
    hmc = statistics.gamma_method(series)
    warned = bool(trust.of_weights(data.log_w) + trust.of_chain(series.shape, hmc.tau_int))
    off = flow.value - data.means - hmc.mean
    error = np.hypot(flow.error, hmc.error)
    names = ("flow - HMC, along ln w", "flow - HMC, another")
    return {name: Trial(off[i], error[i], 0.0, warned) for i, name in enumerate(names)}

  return one


def acceptance(probability: float, streams: int, num: int) -> Simulation:
  """A mean of stream means, with the error that their scatter gives."""

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    mean = statistics.mean_of_streams(rng.random((streams, num)) < probability)
    return {"mean of stream means": _trial(mean, probability)}

  return one


def boltzmann(rms: float, num: int) -> Simulation:
  """<exp(-dH)> = 1 of Gaussian dH of mean rms^2/2."""

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    delta_h = rms * rng.normal(size=num) + rms**2 / 2
    found = weights.reweighted_mean_jackknife(np.zeros(num), np.exp(-delta_h))
    return {"<exp(-dH)>": Trial(float(found.value), float(found.error), 1.0)}

  return one


def figure3(
  ess: float, num: int, tau_int: float, correlation: float, streams: int, length: int, bins: int
) -> Simulation:
  """p-values of figure 3: three observables of pairwise correlation, HMC thinned as in reports.

  The flow's log weights are along the first observable.
  """
  mix = np.linalg.cholesky(np.full((3, 3), correlation) + (1 - correlation) * np.eye(3))

  def one(rng: np.random.Generator) -> dict[str, Trial]:
    s = np.sqrt(-np.log(ess))
    # The target has mean zero; the proposal's is -s along the first direction.
    free = rng.normal(size=(3, num)) - s * np.array([[1.0], [0.0], [0.0]])
    log_w = s * free[0] + s * s / 2
    hmc = np.tensordot(mix, ar1(rng, tau_int, (3, streams, length)), 1)
    flow = mix @ free
    every = statistics.independent_every(list(hmc))
    panels = [histograms.Panel("", f, statistics.thin(h, every).ravel()) for f, h in zip(flow, hmc)]
    comparisons = histograms.compare_all(panels, log_w, bins, 100, int(rng.integers(2**32)))
    found = histograms.chi2_summary(histograms.residuals2(comparisons), len(panels))
    warned = bool(trust.of_weights(log_w))
    pull = lambda p: Trial(float(stats.norm.isf(max(p, 1e-300) / 2)), 1.0, 0.0, warned)
    return {"chi^2 of figure 3": pull(found.p_value), "KS of figure 3": pull(found.ks_p_value)}

  return one
