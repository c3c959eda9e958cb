"""The whole chain: train, sample, HMC, measure, figures. `python -m experiments.reproduce --preset=...`.

Every stage goes on from what it finds in the run's folder, so the same command after a kill finishes the run.
"""

from __future__ import annotations

from typing import Any

from flowqcd.runs import environment, settings
from flowqcd.stages import make_figures, measure


def run(config: settings.Experiment) -> dict[str, Any]:
  """Run all stages and return the content of summary.json."""
  measure.run(config)
  summary = make_figures.run(config)
  environment.say(f"{environment.startup_seconds():.1f} s of imports, traces and compilations")
  return summary
