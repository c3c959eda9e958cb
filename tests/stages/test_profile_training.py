"""Operations that the profile of training counts."""

import jax
from fields import links

from flowqcd.runs.theories import Theory
from flowqcd.stages import profile_training
from flowqcd.stages.training import Training


def test_operations_are_zero_where_the_backend_does_not_count_them(monkeypatch):
  theory = Theory(nc=1, lattice=(4, 4), boundary=(-1.0, 1.0))
  count = lambda: profile_training._determinant_operations(theory, Training(), links(1, (4, 4)))
  assert count() > 1e4
  monkeypatch.setattr(jax.stages.Compiled, "cost_analysis", lambda self: None)
  assert count() == 0
