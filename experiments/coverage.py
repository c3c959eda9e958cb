"""Coverage of every error bar that reports print: `python -m experiments.coverage --output=runs/coverage`."""

from __future__ import annotations

from flowqcd.runs import configuration
from flowqcd.stages import coverage


def main() -> None:
  """Command line."""
  configuration.run(
    coverage.run, {"all": coverage.Plan(), "quick": coverage.Plan(repetitions=50, seeds=2)}, "all", prefix=""
  )


if __name__ == "__main__":
  main()
