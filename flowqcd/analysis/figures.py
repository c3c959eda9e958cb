"""Figures of a run. Every function returns a matplotlib Figure; saving it is the caller's.

Figures are built without pyplot: no global state, no display, nothing to close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import special

from flowqcd.analysis import histograms, statistics, weights

# Okabe and Ito's colours, distinguishable with every kind of colour blindness.
_FLOW, _HMC, _THIRD = "#0072B2", "#E69F00", "#009E73"
_LINES = ((_FLOW, "-"), (_HMC, "--"), (_THIRD, "-."), ("#CC79A7", ":"), ("#000000", "-"))
_STYLE: dict[Any, Any] = {
  "font.size": 11,
  "axes.labelsize": 12,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "legend.frameon": False,
  "lines.linewidth": 1.6,
  "errorbar.capsize": 2,
  "savefig.dpi": 200,
}
_SMALL_TITLES: dict[Any, Any] = _STYLE | {"axes.titlesize": 9}


def observable_histograms(labels: Sequence[str], comparisons: Sequence[histograms.Comparison]) -> Figure:
  """Figure 2 of arXiv:2208.03832: densities from flow and HMC, and their ratio to HMC below.

  One pair of axes per observable, two pairs a row. Points are the reweighted flow, filled steps the
  HMC ensemble with its one-sigma band; errors are those of `histograms.compare`.
  """
  if len(labels) != len(comparisons) or not labels:
    raise ValueError(f"need one label per comparison, got {len(labels)} for {len(comparisons)}")
  columns = min(2, len(labels))
  rows = -(-len(labels) // columns)
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(5.0 * columns, 4.2 * rows), layout="constrained")
    outer = figure.add_gridspec(rows, columns)
    pairs = []
    for i, (label, comparison) in enumerate(zip(labels, comparisons)):
      inner = outer[i // columns, i % columns].subgridspec(2, 1, height_ratios=[3, 1.2])
      upper = figure.add_subplot(inner[0])
      lower = figure.add_subplot(inner[1], sharex=upper)
      _draw_densities(upper, comparison, legend=i == 0)
      _draw_ratios(lower, comparison)
      lower.set_xlabel(label)
      pairs.append((upper, lower))
    # Per column: aligning all at once would move every label to the left edge of the figure.
    for column in range(columns):
      figure.align_ylabels([a for pair in pairs[column::columns] for a in pair])
  return figure


def _chi2_density(x: np.ndarray) -> np.ndarray:
  """Of chi^2 with one degree of freedom."""
  return np.exp(-x / 2) / np.sqrt(2 * np.pi * x)


def residual_distribution(squares: np.ndarray, num_histograms: int = 1, bins: int = 12) -> Figure:
  """Figure 3 of arXiv:2208.03832: density of squared residuals against chi^2_1 (dashed).

  squares: [B], see `histograms.residuals2`. Bins and axis are uniform in the square root; errors
  are binomial, sqrt(p (1 - p) / B), with p from chi^2_1 so that bins with few or no entries have
  one too.
  """
  summary = histograms.chi2_summary(squares, num_histograms)
  top = 1.02 * max(np.sqrt(np.max(squares)), 3.0)
  edges = np.linspace(0, top, bins + 1) ** 2
  expected = np.diff(special.chdtr(1, edges))
  found = np.histogram(squares, edges)[0] / len(squares)
  errors = np.sqrt(expected * (1 - expected) / len(squares))
  width, centres = np.diff(edges), (np.sqrt(edges[1:]) + np.sqrt(edges[:-1])) ** 2 / 4
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    axes.stairs(found / width, edges, color=_FLOW, fill=True, alpha=0.3)
    axes.errorbar(
      centres,
      found / width,
      errors / width,
      color=_FLOW,
      fmt="o",
      ms=4,
      label="all bins of all observables",
    )
    x = np.linspace(0.05, top, 300) ** 2
    axes.plot(x, _chi2_density(x), "--", color="black", label=r"$\chi^2$, 1 degree of freedom")
    axes.set(yscale="log", xlim=(0, edges[-1]), xlabel=r"residual$^2$", ylabel="density")
    smallest = np.min((found / width)[found > 0])
    axes.set_ylim(0.3 * min(smallest, float(_chi2_density(edges[-1]))), 3 * np.max(found / width))
    axes.set_xticks([x for x in (0, 0.25, 1, 2, 4, 6, 9, 12, 16, 25, 36, 64, 100) if x < edges[-1]])
    axes.legend(
      title=rf"$\sum$ residual$^2$ / bins = {summary.chi2:.1f} / {summary.num_bins}"
      f"\n$p$ = {summary.p_value:.2g}, KS $p$ = {summary.ks_p_value:.2g}"
    )
  return figure


def training_curve(
  steps: np.ndarray,
  loss: np.ndarray,
  ess: np.ndarray,
  cpu_minutes: np.ndarray | None = None,
  exact_ess: np.ndarray | None = None,
) -> Figure:
  """Loss and ESS per configuration against the training step and, where given, CPU time; all arrays [n].

  exact_ess: of separate evaluations, NaN at steps without one; drawn as points.
  """
  clocks = [(np.asarray(steps), "training step")]
  if cpu_minutes is not None:
    clocks.append((np.asarray(cpu_minutes), "CPU minutes"))
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(6.5 if len(clocks) == 1 else 9.5, 5.0), layout="constrained")
    grid = figure.subplots(2, len(clocks), sharex="col", sharey="row", squeeze=False)
    for (x, label), (upper, lower) in zip(clocks, grid.T):
      for axes, values, colour in ((upper, loss, _THIRD), (lower, ess, _FLOW)):
        axes.plot(x, values, color=colour, alpha=0.3, lw=0.8)
        axes.plot(*_running_mean(x, np.asarray(values)), color=colour, label="batch")
        axes.grid(alpha=0.25)
      if exact_ess is not None and np.isfinite(exact_ess).any():
        lower.plot(x, exact_ess, "o", ms=4, color=_HMC, label="evaluation")
      lower.axhline(1, color="black", lw=0.8, ls=":")
      lower.set_xlabel(label)
    upper, lower = grid[0, 0], grid[1, 0]
    upper.set_ylabel("loss")
    # The first steps are far above; the interesting part is what follows.
    finite = np.asarray(loss)[np.isfinite(loss)]
    if len(finite) > 20:
      low, high = np.min(finite), np.quantile(finite, 0.95)
      upper.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
    lower.set_ylabel("ESS")
    if np.nanmin(ess) < 0.2:  # Over a narrower range ticks of powers of ten say nothing.
      lower.set_yscale("log")
    lower.legend(loc="lower right")
  return figure


def mask_sweep(active: np.ndarray, frozen: np.ndarray, titles: Sequence[str]) -> Figure:
  """Masks of coupling layers, one panel each: active links over the number of frozen plaquettes at each site.

  active: bool [layers, Nd, *L], frozen: bool [layers, planes, *L], titles: one per layer. In four dimensions a panel shows
  t and x between its tiles and y and z inside them; in three, t between tiles. Links are drawn as dots in the colour of
  their direction.
  """
  count, nd = active.shape[:2]
  columns = min(count, 4)
  rows = -(-count // columns)
  colours = ("#D55E00", _FLOW, _THIRD, "#CC79A7")
  with matplotlib.rc_context(_SMALL_TITLES):
    figure = Figure(figsize=(2.4 * columns, 2.6 * rows), layout="constrained")
    for layer, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
      axes.axis("off")
      if layer >= count:
        continue
      image = _as_plane(frozen[layer].sum(axis=0))
      axes.imshow(image, cmap="Greys", vmin=0, vmax=1.6 * frozen.shape[1], origin="lower")
      for mu in range(nd):
        y, x = np.nonzero(_as_plane(active[layer, mu]))
        axes.plot(x, y, "o", ms=3.2, color=colours[mu])
      axes.set_title(titles[layer])
  return figure


def _as_plane(field: np.ndarray) -> np.ndarray:
  """A field [*L] as an image: (t, y) downwards and (x, z) to the right, tiles of (y, z) apart by a blank line."""
  full = field.reshape((1,) * (4 - field.ndim) + field.shape).astype(float)
  tiled = np.pad(full, [(0, 0), (0, 0), (0, 1), (0, 1)], constant_values=np.nan)
  t, x, y, z = tiled.shape
  plane = tiled.transpose(0, 2, 1, 3).reshape(t * y, x * z)[:-1, :-1]
  return np.nan_to_num(plane, nan=0.0) if field.dtype == bool else plane


def log_weight_histogram(log_w: np.ndarray, bins: int = 60) -> Figure:
  """Density of log weights under the flow and, reweighted, under the target.

  log_w: [N]. The axis is log(w / mean w). The target's histogram must have its bulk where the flow
  still has entries; the right end is where the ESS is decided. Samples of zero weight are left out.
  """
  log_w = weights.require_positive(log_w)
  size, log_mean = float(weights.ess(log_w)), float(weights.log_mean_weight(log_w))
  share = weights.shares(log_w)
  kept = np.isfinite(log_w)
  x = log_w[kept] - log_mean
  edges = np.histogram_bin_edges(x, bins)
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    flow = np.histogram(x, edges, density=True)[0]
    target = np.histogram(x, edges, weights=share[kept], density=True)[0]
    axes.stairs(flow, edges, fill=True, color=_FLOW, alpha=0.45, label="flow")
    axes.stairs(target, edges, color=_HMC, lw=2, label="target (reweighted)")
    axes.axvline(0, color="black", lw=0.8, ls=":")
    axes.set(xlabel=r"$\log\,(w / \bar w)$", ylabel="density", yscale="log")
    axes.set_ylim(bottom=0.3 * np.min(flow[flow > 0]))  # a third of a single entry
    axes.set_ylim(top=8 * axes.get_ylim()[1])  # room for the legend above the peak
    axes.legend(title=f"$N$ = {len(share)}, ESS = {size:.3g}", loc="upper right")
  return figure


def correlator(
  flow: statistics.Estimate,
  hmc: statistics.Estimate,
  label: str = r"$C_\pi(x_0)$",
) -> Figure:
  """Correlator against Euclidean time from both ensembles, and flow / HMC below.

  flow, hmc: values and errors [T], positive. Points are set apart sideways to be told apart.
  """
  times = np.arange(len(flow.value))
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(5.5, 5.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    series = ((hmc, _HMC, "s", "HMC", 0.06), (flow, _FLOW, "o", "flow, reweighted", -0.06))
    for estimate, colour, marker, name, shift in series:
      upper.errorbar(times + shift, estimate.value, estimate.error, fmt=marker, color=colour, ms=5, label=name)
      lower.errorbar(
        times + shift,
        estimate.value / hmc.value,
        estimate.error / hmc.value,
        fmt=marker,
        color=colour,
        ms=5,
      )
    upper.set(yscale="log", ylabel=label)
    upper.legend()
    lower.axhline(1, color="black", lw=0.8, ls=":")
    lower.set(xlabel=r"$x_0 / a$", ylabel="ratio to HMC")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
  return figure


def histories(series: Mapping[str, np.ndarray], pion: statistics.Estimate | None = None) -> Figure:
  """Observables along one chain, one panel each, and below them the pion correlator with its errors, where there is one.

  series: {label: real [n]}; pion: values and errors [T], without error bars where errors are NaN.
  """
  with matplotlib.rc_context(_STYLE):
    panels = len(series) + (pion is not None)
    figure = Figure(figsize=(6.5, 1.9 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    for one, (label, x) in zip(axes, series.items()):
      one.plot(np.arange(len(x)), x, color=_HMC, marker="o", ms=3, lw=0.8)
      one.axhline(np.mean(x), color="black", lw=0.8, ls=":")
      one.set(ylabel=label)
      one.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[len(series) - 1].set(xlabel="configuration")
    if pion is not None:
      axes[-1].errorbar(np.arange(len(pion.value)), pion.value, pion.error, fmt="o", color=_FLOW, ms=5)
      axes[-1].set(yscale="log", xlabel=r"$x_0 / a$", ylabel=r"$C_\pi(x_0)$")
  return figure


def flow_time_curve(
  flow_times: np.ndarray,
  curves: Sequence[tuple[str, statistics.Estimate]],
  label: str = r"$t^2 \langle E(t) \rangle$",
) -> Figure:
  """A quantity along the Wilson flow, one line with its one-sigma band per named ensemble.

  flow_times: [n], in units of a^2; every estimate holds values and errors [n]. At most 5 curves.
  """
  if len(curves) > len(_LINES):
    raise ValueError(f"at most {len(_LINES)} curves can be told apart, got {len(curves)}")
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, estimate), (colour, line) in zip(curves, _LINES, strict=False):
      low, high = estimate.value - estimate.error, estimate.value + estimate.error
      axes.fill_between(flow_times, low, high, color=colour, alpha=0.3, lw=0)
      axes.plot(flow_times, estimate.value, color=colour, ls=line, label=name)
    axes.set(xlabel=r"$t / a^2$", ylabel=label)
    axes.legend()
  return figure


def ess_against_draws(draws: Sequence[int], ess: Sequence[float], exact: float) -> Figure:
  """ESS of a joint model against the draws for each configuration, and the limit set by the exact determinant."""
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(exact, color="black", lw=0.8, ls=":", label="exact determinant")
    axes.plot(draws, ess, marker="o", ms=4, color=_FLOW, label="joint model")
    axes.set(
      xscale="log", ylim=(0, 1.1 * max(exact, *ess)), xlabel="pseudofermion draws", ylabel="ESS per configuration"
    )
    axes.set_xticks(draws, [str(n) for n in draws])
    axes.minorticks_off()
    axes.legend(loc="lower right")
  return figure


def autocorrelations(panels: Mapping[str, Sequence[tuple[str, np.ndarray, np.ndarray]]]) -> Figure:
  """Autocorrelations against the CPU time between, one panel an observable, one line a chain.

  panels: {label: [(chain, milliseconds [n], rho [n])]}. Lines end where rho first falls below 0.01, behind which is noise.
  Raises ValueError for no panels, or more than 5 chains.
  """
  if not panels:
    raise ValueError("there is no autocorrelation to draw")
  if max(map(len, panels.values())) > len(_LINES):
    raise ValueError(f"at most {len(_LINES)} chains can be told apart, got {max(map(len, panels.values()))}")
  with matplotlib.rc_context(_STYLE):
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    for axes, (label, curves) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items()):
      for (name, milliseconds, rho), (colour, line) in zip(curves, _LINES, strict=False):
        end = np.append(np.flatnonzero(rho < 0.01), len(rho))[0] + 1
        axes.plot(milliseconds[:end], rho[:end], color=colour, ls=line, marker="o", ms=3, label=name)
      axes.set(title=label, xlabel="CPU time between, ms", ylabel="autocorrelation", ylim=(-0.1, 1.05))
      axes.axhline(0, color="black", lw=0.8)
      axes.legend()
  return figure


def _draw_densities(axes: Axes, comparison: histograms.Comparison, legend: bool) -> None:
  edges = comparison.edges
  axes.stairs(comparison.density_hmc, edges, fill=True, color=_HMC, alpha=0.35, label="HMC")
  _band(axes, edges, comparison.density_hmc, comparison.err_hmc)
  axes.errorbar(
    (edges[1:] + edges[:-1]) / 2,
    comparison.density_flow,
    comparison.err_flow,
    fmt="o",
    ms=3,
    color=_FLOW,
    label="flow, reweighted",
  )
  axes.set_ylabel("density")
  axes.set_ylim(bottom=0)
  axes.tick_params(labelbottom=False)
  if legend:
    axes.legend(loc="upper right", handlelength=1.2)
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])


def _draw_ratios(axes: Axes, comparison: histograms.Comparison) -> None:
  """Ratios to HMC's central value in the bins that count."""
  edges = comparison.edges
  counted = np.isfinite(comparison.residuals2)
  reference = np.where(counted, comparison.density_hmc, np.nan)
  ratio, error = comparison.density_flow / reference, comparison.err_flow / reference
  error_hmc = comparison.err_hmc / reference
  _band(axes, edges, np.where(counted, 1.0, np.nan), error_hmc)
  axes.axhline(1, color="black", lw=0.8, ls=":")
  centres = (edges[1:] + edges[:-1]) / 2
  axes.errorbar(centres, ratio, error, fmt="o", ms=3, color=_FLOW)
  reach = np.max(np.abs(ratio - 1)[counted] + error[counted], initial=0.1)
  tick = next((t for t in (0.1, 0.2, 0.5) if t >= reach), 1.0)
  axes.set(ylabel="ratio", ylim=(1 - 1.15 * tick, 1 + 1.15 * tick), yticks=(1 - tick, 1, 1 + tick))


def _band(axes: Axes, edges: np.ndarray, centre: np.ndarray, error: np.ndarray) -> None:
  # Bars rather than a stepped fill, which drops a bin whose right neighbour is NaN.
  shown = np.isfinite(centre)
  left, width = edges[:-1][shown], np.diff(edges)[shown]
  low, height = (centre - error)[shown], 2 * error[shown]
  axes.bar(left, height, width, low, align="edge", color=_HMC, alpha=0.5, lw=0)


def _running_mean(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Means over windows of a fiftieth of the curve."""
  window = max(1, len(y) // 50)
  kernel = np.ones(window) / window
  return np.convolve(x, kernel, "valid"), np.convolve(y, kernel, "valid")
