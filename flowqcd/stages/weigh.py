"""Weights of configuration files under a trained flow: `weigh FILES... --model=NAME`.

For each file ln q, from the inverse of the flow, and ln w = ln det - S - ln q for the theory that the model is for: beta
and, of two flavours, kappa and boundary of its card. S has no constants. closure is what ln q changes by on the way back
through the flow: its steps' error. On files of a Markov chain for the theory, ln w says how well the flow covers them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from flowqcd import distributed
from flowqcd.models import priors, zoo
from flowqcd.runs import progress, session, theories
from flowqcd.runs.theories import Theory
from flowqcd.runs.tree import field
from flowqcd.stages import measure, measure_files
from flowqcd.types import Array


@dataclasses.dataclass(frozen=True)
class Plan:
  """By which flow, and how it is shown."""

  model: str = field("", "A model of the package by name, or a file of `publish`.")
  json: bool = field(False, "One JSON object a file, a line each, instead of text.")
  chunk: int = field(4, "Configurations vectorised at once on a device.")
  extents: tuple[int, ...] = field((), "Extents t,x,y,z that files must have; needed for LIME files of bare data.")

  def __post_init__(self) -> None:
    """Raise ValueError for settings that cannot be."""
    if self.chunk < 1:
      raise ValueError(f"--chunk must be at least 1, not {self.chunk}")


def run(plan: Plan, paths: Sequence[str]) -> list[dict[str, float | str]]:
  """Show and return file, log_q, log_w and closure of each file.

  Raises ValueError without a model or for one of pseudofermions, for files of another group than its or of several
  lattices, and what `measure_files.load` raises.
  """
  if not plan.model:
    raise ValueError(f"say --model=NAME; there are {', '.join(zoo.names())}, and files *.safetensors")
  model = zoo.load(plan.model)
  size = min(len(paths), plan.chunk * jax.local_device_count())
  theory, found = None, []
  mapped: Callable | None = None
  for u, infos in measure_files.groups(paths, size, plan.extents, "--extents"):
    if theory is None or mapped is None:
      theory = theory_of(model.card, infos[0].nc, infos[0].lattice, paths[0])
      mapped = distributed.parallel_map(weights(model, theory), plan.chunk)
    values = jax.device_get(mapped(measure_files.padded(u, size)))
    measure.require_finite(values, f"files {len(found) + 1} to {len(found) + len(u)}")
    for row in range(len(u)):
      line = {"file": str(paths[len(found)])} | {name: float(x[row]) for name, x in values.items()}
      progress.show(json.dumps(line) if plan.json else text(line))
      found.append(line)
  return found


def text(line: dict[str, float | str]) -> str:
  """A line for people."""
  return f"{line['file']}: log_q {line['log_q']:.6f}, log_w {line['log_w']:.6f}, closure {line['closure']:.1e}"


def theory_of(card: zoo.Card, nc: int, lattice: tuple[int, ...], path: str) -> Theory:
  """What a model is for, on a file's lattice. Raises ValueError for a file of another group or dimension."""
  if nc != card.nc or len(lattice) != len(card.lattice):
    raise ValueError(
      f"{path} has {nc} colours in {len(lattice)} dimensions, the model {card.nc} in {len(card.lattice)}"
    )
  pure = Theory(nc=nc, lattice=lattice, beta=card.beta, boundary=card.boundary, num_flavours=0)
  return dataclasses.replace(pure, num_flavours=2, kappa=card.kappa) if card.kappa else pure


def weights(model: zoo.Model, theory: Theory) -> Callable[[Array], dict[str, Array]]:
  """u -> log_q, log_w and closure, in double precision. Raises what `zoo.Model.flow` raises."""
  flow = model.flow(theory.lattice)
  prior = priors.haar(theory.nc, theory.lattice, jnp.dtype("complex128"))
  params = session.in_precision(model.params, jnp.dtype("complex128"))

  def one(u: Array) -> dict[str, Array]:
    z, logdet = flow.inverse(params, u)
    _, back = flow.forward(params, z)
    log_q = prior.log_prob(z) + logdet
    log_w = theories.log_det(theory, u) - theories.gauge_value(theory, u) - log_q
    return {"log_q": log_q, "log_w": log_w, "closure": jnp.abs(back + logdet)}

  return one
