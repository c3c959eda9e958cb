"""Trained flows that come with the package: `zoo.load("su3-4d-beta2")`.

A model is one safetensors file: the parameters as arrays, and a card, which says what it was trained for and the ESS that
was measured, as JSON in the file's metadata. Reading one runs no code from it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from flowqcd.flows import family, trivializing
from flowqcd.io import files
from flowqcd.types import Flow, Params

_FOLDER = pathlib.Path(__file__).parent / "trained"
_FORMAT = "flowqcd-trivializing-1"


@dataclasses.dataclass(frozen=True)
class Card:
  """What a trivializing flow was trained for and what it reached.

  lattice: where it was trained and measured; flows without lines are the same flow on every volume. flow: the fields of
  trivializing.Config. kappa: of two flavours of Wilson quarks with this boundary, 0 for none. ess, ess_error: per sample,
  with the exact determinant, over num_samples. cpu_seconds: of the training. family: the fields of family.Config, where one
  flow was trained for a range of couplings; beta and kappa are where its ESS was measured then.
  """

  description: str
  nc: int
  lattice: tuple[int, ...]
  beta: float
  kappa: float
  boundary: tuple[float, ...]
  flow: dict[str, Any]
  ess: float
  ess_error: float
  num_samples: int
  cpu_seconds: float
  family: dict[str, Any] | None = None


class Model(NamedTuple):
  """A card and the parameters of its flow."""

  card: Card
  params: Params

  def flow(self, lattice: tuple[int, ...] | None = None, couplings: family.Couplings | None = None) -> Flow:
    """The flow on the card's lattice, or another: aimed at the same couplings, its learned part unchanged.

    couplings: others than the card's, of a family; they may be traced. Raises ValueError for a model of one coupling.
    """
    card = self.card
    lattice = card.lattice if lattice is None else tuple(lattice)
    flow = trivializing.Config(**card.flow)
    if card.family is not None:
      members = family.make(family.Config(**card.family), flow, card.nc, lattice, card.boundary)
      return members.at(family.Couplings(card.beta, card.kappa) if couplings is None else couplings)
    if couplings is not None:
      raise ValueError(f"this flow is for beta = {card.beta}, kappa = {card.kappa} alone, not for {couplings}")
    if card.kappa:
      target = trivializing.two_flavours(card.beta, card.kappa, card.nc, lattice, card.boundary)
    else:
      target = trivializing.pure_gauge(card.beta, len(lattice))
    return trivializing.make(flow, target, card.nc, lattice)


def names() -> list[str]:
  """The models that come with the package."""
  return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def load(name: str | os.PathLike) -> Model:
  """A model by name, or from a file of `save`.

  Raises ValueError where there is none, or the file is damaged or of another kind.
  """
  path = pathlib.Path(name)
  if path.suffix != ".safetensors":
    if str(name) not in names():
      raise ValueError(f"there is no model '{name}'; there are {', '.join(names())}, and files *.safetensors")
    path = _FOLDER / f"{name}.safetensors"
  try:
    with safetensors.safe_open(path, framework="numpy") as handle:
      metadata = handle.metadata() or {}
      params = {key: handle.get_tensor(key) for key in handle.keys()}
  except FileNotFoundError:
    raise ValueError(f"{path}: no such file") from None
  except safetensors.SafetensorError as error:
    raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None
  if metadata.get("format") != _FORMAT:
    raise ValueError(f"{path} is no model of flowqcd: its format is {metadata.get('format')}, not {_FORMAT}")
  try:
    card = json.loads(metadata["card"])
    card |= {key: tuple(card[key]) for key in ("lattice", "boundary")}
    card["flow"]["loops"] = tuple(card["flow"].get("loops", ()))
    return Model(Card(**card), params)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{path} has no card that this version reads: {type(error).__name__} {error}") from None


def save(path: str | os.PathLike, model: Model) -> None:
  """Write a model to a new file. Raises FileExistsError where there is one."""
  params = {key: np.asarray(value) for key, value in model.params.items()}
  card = json.dumps(dataclasses.asdict(model.card))
  data = safetensors.numpy.save(params, metadata={"format": _FORMAT, "card": card})
  with files.atomic(path) as handle:
    handle.write(data)
