"""Sweeps of the chains that HMC is compared with: settings."""

from __future__ import annotations

import dataclasses

from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Sweeps:
  """Sweeps over all links of pure gauge theory, each with its staples; streams, lengths and thinning are those of hmc."""

  reflections: int = field(1, "Reflected sweeps of the link flow after each fresh one.")
  overrelaxation: int = field(1, "Microcanonical sweeps after each of the heat bath, or after those of the link flow.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot run."""
    if min(self.reflections, self.overrelaxation) < 0:
      raise ValueError(
        f"sweeps.reflections and overrelaxation must not be negative, not {self.reflections}, {self.overrelaxation}"
      )
