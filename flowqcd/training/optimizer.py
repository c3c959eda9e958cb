"""The optimiser: Adam, or Muon for kernels and Adam for the rest, with a staircase schedule and two kinds of clipping.

Muon (Jordan 2024, as in optax.contrib) makes the mean gradient of each kernel, as a matrix from all that an output reads to
the outputs, orthogonal: every direction of it moves alike. In deep chains of kernels that start small, as the paper's do,
what an output answers to its input is in directions that are a hundredth of the gradient, which Adam hardly moves.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from flowqcd.types import Params


def _field(default: Any, doc: str) -> Any:
  return dataclasses.field(default=default, metadata={"doc": doc})


Transformation = optax.GradientTransformation
"""What `make` makes: optax's init and update."""


@dataclasses.dataclass(frozen=True)
class Config:
  """The optimiser's settings; the defaults are the paper's for the marginal model, arXiv:2208.03832, sec. 3.1.

  The rate is learning_rate * decay^(step // decay_steps), and rises to that linearly over the first warmup steps. Gradients
  are clipped to max_norm, then each entry to max_value.
  """

  method: str = _field("adam", "adam; or muon: orthogonal steps for kernels, Adam for the rest.")
  learning_rate: float = _field(1e-3, "Initial rate of Adam.")
  kernel_rate: float = _field(
    0.02, "Initial rate of Muon, the size of a step's singular values; it follows Adam's rate."
  )
  decay: float = _field(0.8, "Factor of the rate after each decay_steps.")
  decay_steps: int = _field(10_000, "Steps between decays of the rate.")
  epsilon: float = _field(1e-2, "Adam's epsilon.")
  beta1: float = _field(0.9, "Decay of Adam's mean of gradients.")
  beta2: float = _field(0.999, "Decay of Adam's mean of squared gradients.")
  warmup: int = _field(0, "Steps over which the rate rises.")
  max_norm: float = _field(10.0, "Gradients are clipped to this norm.")
  max_value: float = _field(0.1, "Gradient entries are clipped to this size.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    if self.method not in ("adam", "muon"):
      raise ValueError(f"optimizer.method must be adam or muon, not '{self.method}'")
    for name in ("learning_rate", "kernel_rate", "decay", "decay_steps", "epsilon", "max_norm", "max_value"):
      if getattr(self, name) <= 0:
        raise ValueError(f"optimizer.{name} must be positive, not {getattr(self, name)}")
    for name in ("beta1", "beta2"):
      if not 0 < getattr(self, name) < 1:
        raise ValueError(f"optimizer.{name} must be between 0 and 1, not {getattr(self, name)}")
    if self.warmup < 0:
      raise ValueError(f"optimizer.warmup must not be negative, not {self.warmup}")


def stairs(steps: Sequence[int], rates: Sequence[float]) -> optax.Schedule:
  """A constant rate for each phase, steps[i] steps long; the last one goes on."""
  return optax.join_schedules([optax.constant_schedule(r) for r in rates], list(itertools.accumulate(steps))[:-1])


def make(config: Config, schedule: optax.Schedule | None = None) -> optax.GradientTransformation:
  """The optax transformation for a config, with its own schedule of the rate or another."""
  if schedule is None:
    schedule = optax.exponential_decay(config.learning_rate, config.decay_steps, config.decay, staircase=True)
  warmed = (lambda step: schedule(step) * jnp.minimum(1, (step + 1) / config.warmup)) if config.warmup else schedule
  if config.method == "adam":
    step = optax.adam(warmed, b1=config.beta1, b2=config.beta2, eps=config.epsilon)
  else:
    step = contrib.muon(
      # Its own epsilon is for norms of gradients, which are as small as what an untrained network answers.
      lambda count: warmed(count) * config.kernel_rate / config.learning_rate,
      eps=1e-30,
      adam_b1=config.beta1,
      adam_b2=config.beta2,
      adam_learning_rate=warmed,
      muon_weight_dimension_numbers=_kernels,
    )
  return optax.chain(optax.clip_by_global_norm(config.max_norm), optax.clip(config.max_value), step)


def _kernels(params: Params) -> Params:
  """Which parameters are kernels [..., kernel, Cin, Cout], matrices from (kernel, Cin) to Cout; None for the others."""

  def one(x: jax.Array) -> contrib.MuonDimensionNumbers | None:
    return contrib.MuonDimensionNumbers((x.ndim - 3, x.ndim - 2), (x.ndim - 1,)) if x.ndim > 2 else None

  return jax.tree.map(one, params)
