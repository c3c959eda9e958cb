"""Figures, report and summary of a measured run."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from flowqcd.analysis import histograms, weights
from flowqcd.io import files, metrics
from flowqcd.runs import progress, theories
from flowqcd.runs.folder import Run
from flowqcd.runs.priors import Prior
from flowqcd.runs.theories import Theory
from flowqcd.stages import report, results, summary


def draw(run: Run, theory: Theory, prior: Prior, num_bins: int, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Write figure2, figure3, log_weights, (pion, draws) as PNG and PDF, summary.json and report.md; return the summary.

  Where too few effective samples fill a bin there is no figure3, and the report says so.
  All are made anew from what is stored, so that they may be remade at any time. settings: what the report lists.
  """
  from flowqcd.analysis import figures  # matplotlib is slow to import, and only needed here

  folder = run.folder
  data = results.load(folder)
  panels = results.panels(data)
  comparisons = histograms.compare_all(panels, data.log_w, num_bins)
  squares = histograms.residuals2(comparisons)
  chi2 = histograms.chi2_summary(squares, len(panels)) if len(squares) > len(panels) else None
  drawn = {"figure2": figures.observable_histograms([p.label for p in panels], comparisons)}
  if chi2 is not None:
    drawn["figure3"] = figures.residual_distribution(squares, len(panels))
  drawn["log_weights"] = figures.log_weight_histogram(data.log_w)
  pairs = results.pairs(data, theories.num_planes(theory))
  if "pion" in pairs:
    drawn["pion"] = figures.correlator(pairs["pion"].flow, pairs["pion"].hmc)
  if data.log_draws is not None:
    curve = results.draw_curve(data)
    drawn["draws"] = figures.ess_against_draws(curve.draws, curve.ess, float(weights.ess(data.log_w_exact)))
  for name, figure in drawn.items():
    _save(figure, folder / name)
  names = list(drawn) + [name for name in ("training", "conditional") if (folder / f"{name}.png").exists()]
  numbers = summary.numbers(run, theory, prior, data, chi2)
  metrics.write_json(folder / "summary.json", numbers)
  with files.atomic(folder / "report.md", overwrite=True) as handle:
    handle.write(report.markdown(theory, settings, numbers, names).encode())
  progress.say(f"{folder / 'report.md'}: ess {numbers.get('ess_joint', numbers['ess_marginal']):.4f}")
  return numbers


def _save(figure: Any, path: pathlib.Path) -> None:
  for kind in ("png", "pdf"):
    with files.atomic(path.with_suffix(f".{kind}"), overwrite=True) as handle:
      figure.savefig(handle, format=kind)
    # It is laid out: to do it again takes as long as drawing.
    figure.set_layout_engine("none")
