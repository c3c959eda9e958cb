"""How a marginal model is trained: settings."""

from __future__ import annotations

import dataclasses

from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field


@dataclasses.dataclass(frozen=True)
class Training:
  """Reverse-KL training of the marginal flow; none for num_steps = 0, the analytic flow."""

  method: str = field("adam", "adam, or natural: natural gradient, for models of few parameters.")
  loss: str = field("reverse_kl", "reverse_kl, or variance: of log w, whose gradient needs no force of the action.")
  num_steps: int = field(0, "Optimisation steps; 0 uses the analytic coefficients as they are.")
  batch: int = field(32, "Configurations per step, over all devices.")
  chunk: int = field(4, "Configurations vectorised at once on a device; gradients of chunks are accumulated.")
  precision: str = field("double", "Working precision of training: single or double.")
  start_from: str = field(
    "",
    "Folder of a finished or stopped run whose parameters are the start, other volumes included; or a published model, by "
    "name or file.",
  )
  round: bool = field(
    False, "Round trained parameters to 16 bits, as a published model has them, before they are used."
  )
  path_gradient: bool = field(True, "Leave out the score term of the gradient.")
  determinant: str = field("stochastic", "Quarks in training: stochastic, exact or none.")
  num_noise: int = field(4, "Noise vectors of the stochastic determinant gradient.")
  even_odd: bool = field(True, "Noise on odd sites only, for M M^dag + mu0 with the Schur complement M.")
  mu0: float = field(1e-5, "Regulator of D D^dag + mu0 in training.")
  max_growth: float = field(100.0, "Steps whose gradient exceeds this many times the usual norm are skipped.")
  max_bad_steps: int = field(20, "Skipped steps in a row that end the training.")
  evaluate_every: int = field(20, "Steps between evaluations with the exact determinant.")
  num_evaluate: int = field(32, "Configurations of an evaluation.")
  checkpoint_every: int = field(20, "Steps between checkpoints.")
  keep: int = field(3, "Checkpoints kept.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot train."""
    if self.determinant not in ("stochastic", "exact", "none"):
      raise ValueError(f"training.determinant must be stochastic, exact or none, not '{self.determinant}'")
    if self.method not in ("adam", "natural"):
      raise ValueError(f"training.method must be adam or natural, not '{self.method}'")
    if self.loss not in ("reverse_kl", "variance"):
      raise ValueError(f"training.loss must be reverse_kl or variance, not '{self.loss}'")
    if self.precision not in ("single", "double"):
      raise ValueError(f"training.precision must be single or double, not '{self.precision}'")
    if self.max_growth <= 1:
      raise ValueError(f"training.max_growth must be above 1, not {self.max_growth}")
    for name in ("batch", "chunk", "num_noise", "evaluate_every", "num_evaluate", "checkpoint_every"):
      if getattr(self, name) < 1:
        raise ValueError(f"training.{name} must be at least 1, not {getattr(self, name)}")
    if self.num_steps < 0:
      raise ValueError(f"training.num_steps must not be negative, not {self.num_steps}")


def check(training: Training, theory: Theory) -> None:
  """Raise ValueError where the method or the loss needs what the determinant's noise vectors do not give."""
  needs_log_w = "method = natural" if training.method == "natural" else "loss = variance"
  if training.method == "natural" or training.loss == "variance":
    if training.determinant == "stochastic" and theory.num_flavours:
      raise ValueError(f"training.{needs_log_w} fits log w itself: it needs training.determinant = exact or none")
