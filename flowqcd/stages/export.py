"""Configurations of a run as files for other codes: `export RUN --to=FOLDER`.

RUN is a run's folder or one ensemble's. Into FOLDER, which must hold nothing yet, go one file a configuration, and last the
table configurations.csv and configurations.json: for each file its SHA-256, its place in the ensemble, its plaquette, and
its log weights ln w, which every mean over a flow's samples needs: sum w O / sum w. With --chain the files are an
unweighted Markov chain instead, by independence Metropolis over the samples in their order: what is not accepted is there
again. HMC's files are unweighted, one stream after another.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowqcd.io import ensembles, fields, files, hdf5, ildg, metrics, nersc
from flowqcd.mcmc import metropolis
from flowqcd.runs.progress import Progress
from flowqcd.runs.tree import choose, field
from flowqcd.stages import draws

_SALT = 7
"""Of the chain's random numbers: those of the acceptance in summary.json."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is written, and where."""

  to: str = field("", "Folder for the files, which must hold nothing yet.")
  format: str = field("ildg", "ildg, nersc (SU(3) alone) or hdf5.")
  ensemble: str = field("flow", "Which ensemble of a run: flow, hmc or annealed.")
  precision: int = field(0, "Bits of a number in the files, 32 or 64; 0 for those that the run has stored.")
  chain: bool = field(False, "An unweighted chain by independence Metropolis, in place of weighted configurations.")


class Item(NamedTuple):
  """A file to be written: links, where they are in the ensemble, and what the table says beside."""

  name: str
  u: np.ndarray
  place: dict[str, int]
  columns: dict[str, float]


def run(run: pathlib.Path, plan: Plan) -> list[dict[str, Any]]:
  """Write the files, and return the lines of their table.

  Raises FileExistsError where the folder holds anything, ValueError for settings that do not go together, EnsembleError
  for what is no ensemble.
  """
  folder = _folder(plan)
  store = _store(run, plan.ensemble)
  writer = choose(_WRITERS, plan.format, "--format")
  _check(store, plan)
  folder.mkdir(parents=True, exist_ok=True)
  items = _chain(store) if plan.chain else _every(store)
  total = len(store.read("log_w")) if plan.chain else sum(store.part_lengths("u"))
  progress, table = Progress("exporting", total), []
  for item in items:
    path = folder / f"{item.name}.{plan.format}"
    bits = plan.precision or (32 if item.u.dtype == np.complex64 else 64)
    writer(path, item.u, bits, _notes(store.config, item))
    table.append(_line(path, item))
    progress.update(len(table))
  _write_table(folder, table, {"ensemble": str(store.path), "chain": plan.chain, "config": store.config})
  return table


def _folder(plan: Plan) -> pathlib.Path:
  if not plan.to:
    raise ValueError("say --to=FOLDER, where the files are to go")
  if plan.precision not in (0, 32, 64):
    raise ValueError(f"--precision must be 32 or 64, or 0 for that of the run, not {plan.precision}")
  if not files.is_vacant(plan.to):
    raise FileExistsError(f"{plan.to} is not empty; choose a new folder")
  return pathlib.Path(plan.to)


def _store(path: pathlib.Path, name: str) -> ensembles.Ensemble:
  """The ensemble of links that a path is, or that a run's folder has under a name."""
  store = ensembles.Ensemble.open(path if (path / "ensemble.json").exists() else path / name)
  if "u" not in store.names:
    raise ensembles.EnsembleError(f"{store.path} has no configurations to export")
  return store


def _check(store: ensembles.Ensemble, plan: Plan) -> None:
  """Raise ValueError for links that the format does not hold, and for a chain of what has no weights."""
  if plan.chain and "log_w" not in store.names:
    raise ValueError(f"{store.path} has no weights: it is a chain already, which needs no --chain")
  u = store.read_part(0, "u")[0]
  if plan.format == "nersc" or (plan.format == "ildg" and u.shape[1] == 3):
    try:
      fields.check_links(u)
    except ValueError as error:
      raise ValueError(f"{error}; --format=hdf5 holds every group in 2 to 4 dimensions") from None


def _every(store: ensembles.Ensemble) -> Iterator[Item]:
  """All configurations: samples in their order with log weights, or chains one stream after another."""
  weights = {"log_w": store.read("log_w")} if "log_w" in store.names else {}
  if "log_w_joint" in store.names:
    weights["log_w_joint"] = draws.read(store).log_w
  if weights:
    index = 0
    for part in range(store.num_parts):
      for u in store.read_part(part, "u"):
        values = {name: float(x[index]) for name, x in weights.items()}
        yield Item(f"{store.path.name}-{index:06d}", u, {"sample": index}, values)
        index += 1
    return
  streams = int(store.config.get("hmc.streams", 1))
  for stream in range(streams):
    index = 0
    for part in range(store.num_parts):
      rows = store.read_part(part, "u")
      for u in rows.reshape(streams, -1, *rows.shape[1:])[stream]:
        yield Item(f"{store.path.name}-{stream:03d}-{index:06d}", u, {"stream": stream, "configuration": index}, {})
        index += 1


def _chain(store: ensembles.Ensemble) -> Iterator[Item]:
  """The samples that a chain sits on after each proposal."""
  key = jax.random.fold_in(jax.random.key(int(store.config.get("seed", 0))), _SALT)
  found = jax.device_get(metropolis.chain(key, jnp.asarray(store.read("log_w"))))
  starts = np.concatenate([[0], np.cumsum(store.part_lengths("u"))])
  part, links = -1, np.empty(0)
  for step, (index, accepted) in enumerate(zip(found.index, found.accepted)):
    # Along the chain samples only go forward, so that each part is read once.
    here = int(np.searchsorted(starts, index, side="right")) - 1
    if here != part:
      part, links = here, store.read_part(here, "u")
    place = {"step": step, "sample": int(index), "accepted": int(accepted)}
    yield Item(f"{store.path.name}-chain-{step:06d}", links[index - starts[part]], place, {})


def _notes(config: Mapping[str, Any], item: Item) -> dict[str, str]:
  """What a file states of its theory: beta, and with quarks kappa and the phases at the boundary, time first."""
  quarks = ("kappa", "boundary") if config.get("theory.num_flavours") else ()
  values = {name: config[f"theory.{name}"] for name in ("beta", *quarks) if f"theory.{name}" in config}
  shown = lambda x: " ".join(f"{n:g}" for n in x) if isinstance(x, (list, tuple)) else repr(x)
  return {name: shown(value) for name, value in values.items()} | {name: str(n) for name, n in item.place.items()}


def _to_ildg(path: pathlib.Path, u: np.ndarray, bits: int, notes: Mapping[str, str]) -> None:
  ildg.write(path, u, bits, notes={"plaquette": f"{fields.plaquette(u):.12f}", **notes})


def _to_nersc(path: pathlib.Path, u: np.ndarray, bits: int, notes: Mapping[str, str]) -> None:
  # BOUNDARY_1..4 are the links', which are periodic.
  names = {"boundary": "FERMION_BOUNDARY"}
  nersc.write(path, u, f"IEEE{bits}BIG", header={names.get(name, name.upper()): x for name, x in notes.items()})


def _to_hdf5(path: pathlib.Path, u: np.ndarray, bits: int, notes: Mapping[str, str]) -> None:
  hdf5.write(path, u, bits, notes=notes)


_WRITERS: dict[str, Callable[[pathlib.Path, np.ndarray, int, Mapping[str, str]], None]] = {
  "ildg": _to_ildg,
  "nersc": _to_nersc,
  "hdf5": _to_hdf5,
}


def _line(path: pathlib.Path, item: Item) -> dict[str, Any]:
  with open(path, "rb") as handle:
    digest = hashlib.file_digest(handle, "sha256").hexdigest()
  plaquette = fields.plaquette(np.asarray(item.u, np.complex128))
  return {"file": path.name, "sha256_of_file": digest, **item.place, **item.columns, "plaquette": plaquette}


def _write_table(folder: pathlib.Path, table: list[dict[str, Any]], about: Mapping[str, Any]) -> None:
  text = io.StringIO()
  writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
  writer.writeheader()
  writer.writerows(table)
  with files.atomic(folder / "configurations.csv") as handle:
    handle.write(text.getvalue().encode())
  metrics.write_json(folder / "configurations.json", {**about, "files": table})
