"""Trained models that come with the package: `zoo.load("su3-4d-beta2")`.

A model is one safetensors file: the parameters as arrays, and a card, which says what it was trained for and the ESS that
was measured, as JSON in the file's metadata, with a SHA-256 of both. Reading one runs no code from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import typing
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from flowqcd.flows import coupling, family, ptcn, trivializing
from flowqcd.io import files
from flowqcd.models import conditional, marginal, priors
from flowqcd.theory import pseudofermion
from flowqcd.types import Flow, Params

_FOLDER = pathlib.Path(__file__).parent / "trained"
_FORMAT = "flowqcd-model-2"
_OLDER = "flowqcd-trivializing-1"
"""Files without a SHA-256, of trivializing flows alone."""
KINDS = ("trivializing", "spectral", "ptcn", "ptcn_odd")
"""Flows of links by one gradient flow or by spectral couplings; of pseudofermions by PTCNs on all sites, or on odd ones."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Card:
  """What a model was trained for and what it reached.

  lattice: where it was trained and measured; flows without lines are the same flow on every volume. flow: the fields of
  trivializing.Config, coupling.Config or ptcn.Config. kappa: of two flavours of Wilson quarks with this boundary, 0 for
  none. ess, ess_error: per sample over num_samples, with the exact determinant for models of links, and of the joint
  model with `draws` draws for models of pseudofermions. cpu_seconds: of the training, and configurations: seen in it.
  recipe: its settings. family: the fields of family.Config, where one flow was trained for a range of couplings; beta and
  kappa are where its ESS was measured then.
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
  kind: str = "trivializing"
  draws: int = 0
  configurations: int = 0
  recipe: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    """Raise ValueError for a kind that is not there."""
    if self.kind not in KINDS:
      raise ValueError(f"kind must be one of {', '.join(KINDS)}, not '{self.kind}'")


class Model(NamedTuple):
  """A card and the parameters of its flow."""

  card: Card
  params: Params

  def flow(self, lattice: tuple[int, ...] | None = None, couplings: family.Couplings | None = None) -> Flow:
    """The flow of links on the card's lattice, or another: aimed at the same couplings, its learned part unchanged.

    couplings: others than the card's, of a family; they may be traced. Raises ValueError for a model of one coupling, or of
    pseudofermions, and MaskError for a lattice that spectral layers do not fit.
    """
    card = self.card
    lattice = card.lattice if lattice is None else tuple(lattice)
    if card.kind == "spectral" and couplings is None:
      return coupling.make(_from_fields(coupling.Config, card.flow), card.nc, lattice)
    if card.kind not in ("trivializing", "spectral"):
      raise ValueError(f"'{card.description}' is a model of pseudofermions: it has `conditional`, and no flow of links")
    if card.family is not None:
      members = family.make(family.Config(**card.family), self._trivializing, card.nc, lattice, card.boundary)
      return members.at(family.Couplings(card.beta, card.kappa) if couplings is None else couplings)
    if couplings is not None:
      raise ValueError(f"this flow is for beta = {card.beta}, kappa = {card.kappa} alone, not for {couplings}")
    if card.kappa:
      target = trivializing.two_flavours(card.beta, card.kappa, card.nc, lattice, card.boundary)
    else:
      target = trivializing.pure_gauge(card.beta, len(lattice))
    return trivializing.make(self._trivializing, target, card.nc, lattice)

  @property
  def _trivializing(self) -> trivializing.Config:
    return _from_fields(trivializing.Config, self.card.flow)

  def marginal(self, lattice: tuple[int, ...] | None = None, dtype: jnp.dtype = jnp.complex64) -> marginal.Marginal:
    """The model of links from Haar-random ones; errors as of `flow`."""
    lattice = self.card.lattice if lattice is None else tuple(lattice)
    return marginal.make(priors.haar(self.card.nc, lattice, dtype), self.flow(lattice))

  def conditional(self, lattice: tuple[int, ...] | None = None, tolerance: float = 1e-5) -> conditional.Conditional:
    """The model of pseudofermions with its action, solved to this tolerance. Raises ValueError for a model of links."""
    card = self.card
    lattice = card.lattice if lattice is None else tuple(lattice)
    if card.kind not in ("ptcn", "ptcn_odd"):
      raise ValueError(f"'{card.description}' is a model of links: it has `flow` and `marginal`, and no `conditional`")
    full = card.kind == "ptcn"
    flow = (ptcn.full if full else ptcn.odd)(_from_fields(ptcn.Config, card.flow), card.nc, lattice, card.boundary)
    action = (pseudofermion.plain if full else pseudofermion.even_odd)(
      card.kappa, card.boundary, 0.0, (tolerance, tolerance)
    )
    return conditional.make([conditional.Factor(flow, action, 1 if full else 2)])


def _from_fields(kind: type[T], fields: Mapping[str, Any]) -> T:
  """A dataclass, others within it included, from what `dataclasses.asdict` made of it."""
  hints, values = typing.get_type_hints(kind), {}
  for name, value in fields.items():
    inner = hints.get(name)
    values[name] = _from_fields(inner, value) if isinstance(inner, type) and dataclasses.is_dataclass(inner) else value
  return kind(**values)


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples that they were."""
  if isinstance(value, dict):
    return {key: _tuples(inner) for key, inner in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def names() -> list[str]:
  """The models that come with the package."""
  return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def load(name: str | os.PathLike) -> Model:
  """A model by name, or from a file of `save`. Parameters stored in 16 bits come in 32.

  Raises ValueError where there is none of this name, StoreError where the file is damaged, altered or of another kind. A
  file of the format without a SHA-256 is read with a warning.
  """
  path = pathlib.Path(name)
  if path.suffix != ".safetensors":
    if str(name) not in names():
      raise ValueError(f"there is no model '{name}'; there are {', '.join(names())}, and files *.safetensors")
    path = _FOLDER / f"{name}.safetensors"
  metadata, arrays = _read(path)
  if metadata.get("format") not in (_FORMAT, _OLDER):
    raise files.StoreError(f"{path} is no model of flowqcd: its format is {metadata.get('format')}, not {_FORMAT}")
  if metadata["format"] == _OLDER:
    warnings.warn(f"{path} has no SHA-256, as earlier versions wrote it: it is read unverified", stacklevel=2)
  elif metadata.get("sha256") != _digest(metadata.get("card", ""), arrays):
    raise files.StoreError(f"{path} is damaged or was altered: its contents are not those of its SHA-256")
  try:
    model = Model(Card(**_tuples(json.loads(metadata["card"]))), ())
    template = jax.eval_shape(_made(model).init, jax.random.key(0))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise files.StoreError(f"{path} has no card that this version reads: {type(error).__name__} {error}") from None
  return model._replace(params=_tree(path, template, arrays))


def _read(path: pathlib.Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
  try:
    with safetensors.safe_open(path, framework="numpy") as handle:
      return handle.metadata() or {}, {key: handle.get_tensor(key) for key in handle.keys()}
  except FileNotFoundError:
    raise files.StoreError(f"{path}: no such file") from None
  except Exception as error:  # safetensors raises what it stumbles upon: SafetensorError, and others for unknown types.
    if isinstance(error, OSError) and error.errno is not None:
      raise OSError(error.errno, error.strerror, str(path)) from None
    raise files.StoreError(f"{path} is damaged or no safetensors file: {type(error).__name__} {error}") from None


def _made(model: Model) -> marginal.Marginal | conditional.Conditional:
  return model.marginal() if model.card.kind in ("trivializing", "spectral") else model.conditional()


def _tree(path: pathlib.Path, template: Params, arrays: dict[str, np.ndarray]) -> Params:
  """The arrays in the structure that the card's model has. Raises StoreError where names or shapes are others."""
  wanted = {name: leaf.shape for name, leaf in _named(template).items()}
  found = {name: array.shape for name, array in arrays.items()}
  if wanted != found:
    differing = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    what = ", ".join(f"{k}: {found.get(k)} there, {wanted.get(k)} by its card" for k in differing[:3])
    raise files.StoreError(f"{path} has not the parameters of its card ({what})")
  wide = lambda x: x.astype(np.float32) if x.dtype == np.float16 else x
  return jax.tree.unflatten(jax.tree.structure(template), [wide(arrays[name]) for name in wanted])


def _named(params: Params) -> dict[str, Any]:
  """{path of a leaf: leaf}, in the order of the tree."""
  return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(params)}


def _digest(card: str, arrays: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of the card and of all arrays with their names, types and shapes."""
  digest = hashlib.sha256(card.encode())
  for name in sorted(arrays):
    array = arrays[name]
    digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


def _halved(x: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore"):
    return x.astype(np.float16)


def rounded(params: Params) -> Params:
  """Parameters that 16 bits hold, which half a file is enough for: relative errors of 2^-11, or 3e-8 below 6e-5.

  Raises ValueError for parameters out of their range, 65504.
  """

  def one(x: jax.Array) -> jax.Array:
    short = _halved(np.asarray(x))
    if not np.isfinite(short).all():
      raise ValueError("a parameter is not finite in 16 bits, which end at 65504")
    return jnp.asarray(short.astype(np.asarray(x).dtype))

  return jax.tree.map(one, params)


def save(path: str | os.PathLike, model: Model) -> None:
  """Write a model to a new file, in 16 bits where these hold all parameters exactly (see `rounded`).

  Raises FileExistsError where there is one.
  """
  arrays = {name: np.asarray(value) for name, value in _named(model.params).items()}
  if all(np.array_equal(x, _halved(x).astype(x.dtype)) for x in arrays.values()):
    arrays = {name: _halved(x) for name, x in arrays.items()}
  card = json.dumps(dataclasses.asdict(model.card))
  metadata = {"format": _FORMAT, "card": card, "sha256": _digest(card, arrays)}
  with files.atomic(path) as handle:
    handle.write(safetensors.numpy.save(arrays, metadata=metadata))
