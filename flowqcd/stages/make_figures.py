"""Figures, report and summary of a measured run: `python -m experiments.make_figures --preset=...`."""

from __future__ import annotations

import pathlib
from typing import Any

from flowqcd.analysis import figures, histograms, weights
from flowqcd.io import files, metrics
from flowqcd.runs import environment, settings
from flowqcd.stages import report, summary


def run(config: settings.Experiment) -> dict[str, Any]:
  """Write figure2, figure3, log_weights, (pion, draws) as PNG and PDF, summary.json and report.md; return the summary.

  Where too few effective samples fill a bin there is no figure3, and the report says so.
  All are made anew from what is stored, so that they may be remade at any time.
  """
  environment.start(config)
  folder = environment.claim(config)
  data = summary.load(folder)
  panels = summary.panels(data)
  comparisons = histograms.compare_all(panels, data.log_w, config.measurement.bins)
  squares = histograms.residuals2(comparisons)
  chi2 = histograms.chi2_summary(squares, len(panels)) if len(squares) > len(panels) else None
  drawn = {"figure2": figures.observable_histograms([p.label for p in panels], comparisons)}
  if chi2 is not None:
    drawn["figure3"] = figures.residual_distribution(squares, len(panels))
  drawn["log_weights"] = figures.log_weight_histogram(data.log_w)
  pairs = summary.pairs(config, data)
  if "pion" in pairs:
    drawn["pion"] = figures.correlator(*pairs["pion"])
  if data.log_draws is not None:
    curve = summary.draw_curve(data)
    drawn["draws"] = figures.ess_against_draws(curve.draws, curve.ess, float(weights.ess(data.log_w_exact)))
  for name, figure in drawn.items():
    _save(figure, folder / name)
  names = list(drawn) + [name for name in ("training", "conditional") if (folder / f"{name}.png").exists()]
  numbers = summary.numbers(config, data, chi2)
  metrics.write_json(folder / "summary.json", numbers)
  with files.atomic(folder / "report.md", overwrite=True) as handle:
    handle.write(report.markdown(config, numbers, names).encode())
  environment.say(f"{folder / 'report.md'}: ess {numbers.get('ess_joint', numbers['ess_marginal']):.4f}")
  return numbers


def _save(figure, path: pathlib.Path) -> None:
  for kind in ("png", "pdf"):
    with files.atomic(path.with_suffix(f".{kind}"), overwrite=True) as handle:
      figure.savefig(handle, format=kind)
