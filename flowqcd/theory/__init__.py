"""Lattice actions, Dirac operators, determinants and observables as pure functions."""

from typing import TYPE_CHECKING

from flowqcd._lazy import submodules

if TYPE_CHECKING:
  from flowqcd.theory import determinant, dirac, gauge, observables, pseudofermion, solvers, torus, wilson_flow

__all__ = ["determinant", "dirac", "gauge", "observables", "pseudofermion", "solvers", "torus", "wilson_flow"]
__getattr__, __dir__ = submodules(__name__, __all__)
