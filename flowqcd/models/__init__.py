"""Probability models made of priors and flows."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.models import conditional, joint, marginal, priors, zoo

__all__ = ["conditional", "joint", "marginal", "priors", "zoo"]
__getattr__, __dir__ = submodules(__name__, __all__)
