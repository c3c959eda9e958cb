"""Every sampler against answers that are known: `python -m experiments.exactness --minutes=30`."""

from __future__ import annotations

import sys

from flowqcd.runs import configuration
from flowqcd.stages import exactness


def main() -> None:
  """Command line; exit status 1 where a sampler is wrong."""

  def checked(config: exactness.Plan) -> None:
    if not exactness.run(config).passed:
      sys.exit(1)

  configuration.run(checked, {"all": exactness.Plan()}, "all", prefix="")


if __name__ == "__main__":
  main()
