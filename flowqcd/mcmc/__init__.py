"""Markov chains: HMC, heat bath and Metropolis."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.mcmc import annealing, flowed, heatbath, hmc, link, link_flow, metropolis, sweeps

__all__ = ["annealing", "flowed", "heatbath", "hmc", "link", "link_flow", "metropolis", "sweeps"]
__getattr__, __dir__ = submodules(__name__, __all__)
