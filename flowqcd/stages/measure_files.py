"""Observables of configuration files of any format, taken as one chain in the order given, with errors."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flowqcd import distributed
from flowqcd.analysis import statistics, trust
from flowqcd.io import configurations, files, hdf5
from flowqcd.io.files import NoExtentsError
from flowqcd.runs import progress
from flowqcd.runs.progress import Progress
from flowqcd.runs.theories import Theory
from flowqcd.stages import measure, report
from flowqcd.stages.measure import Measurement

_FLAG = "--config.measurement.extents"
ENOUGH = 20
"""Configurations from which on the Gamma method can tell an autocorrelation from noise."""


class Row(NamedTuple):
  """A line of the table. error: NaN where there is none. method: how it was found. tau_int: with its error, or None."""

  observable: str
  value: float
  error: float
  method: str
  tau_int: float | None = None
  tau_int_error: float | None = None


def run(folder: pathlib.Path, theory: Theory, plan: Measurement, paths: Sequence[str], dtype: Any) -> list[Row]:
  """Write observables.h5, .md, .csv and .png into a new folder; return the table.

  theory: its quarks are those of the pion, if num_flavours is not 0; colours and extents are the files', of bare data
  plan.extents. Raises FileExistsError where the folder holds anything, ValueError for files of several lattices or groups,
  and what `load` raises.
  """
  if not files.is_vacant(folder):
    raise FileExistsError(f"{folder} is not empty; choose another --config.output, a new folder")
  first = load(paths[0], plan.extents, _FLAG)[1]
  theory = _of_files(theory, first)
  folder.mkdir(parents=True, exist_ok=True)
  values, infos = _measured(theory, plan, paths, dtype)
  table = rows(values, plan.flow_time)
  settings = {"kappa": theory.kappa, "boundary": theory.boundary} if theory.num_flavours else {}
  settings = {"group": first.group, "lattice": first.lattice, "flow_time": plan.flow_time, **settings}
  columns = {"file": np.array([str(path).encode() for path in paths]), **values}
  hdf5.write_columns(folder / "observables.h5", columns, {"settings": json.dumps(settings)})
  text = markdown(theory, settings, table, notes(theory, paths, infos, values))
  for name, content in ((".md", text), (".csv", as_csv(table))):
    with files.atomic(folder / f"observables{name}") as handle:
      handle.write(content.encode())
  _draw(folder / "observables.png", values, table)
  progress.say(f"{folder / 'observables.md'}: {len(paths)} configurations")
  return table


def _of_files(theory: Theory, info: configurations.Info) -> Theory:
  """The theory with the colours and the lattice of the files. Raises ValueError where its quarks do not fit those."""
  try:
    boundary = theory.boundary[: len(info.lattice)]
    return dataclasses.replace(theory, nc=info.nc, lattice=info.lattice, boundary=boundary)
  except ValueError as error:
    raise ValueError(f"{error}; --config.theory.num_flavours=0 leaves the pion out") from None


def _measured(
  theory: Theory, plan: Measurement, paths: Sequence[str], dtype: Any
) -> tuple[dict[str, np.ndarray], list[configurations.Info]]:
  """Observables by name, [files, ...], and what the files say."""
  size = min(len(paths), plan.chunk * jax.local_device_count())
  mapped = distributed.parallel_map(lambda u: measure.observables_of(theory, plan, u), plan.chunk)
  found, infos = [], []
  progress_ = Progress("measuring files", len(paths))
  for links, read in groups(paths, size, plan.extents, _FLAG):
    values = {name: x[: len(links)] for name, x in jax.device_get(mapped(padded(links.astype(dtype), size))).items()}
    measure.require_finite(values, f"files {len(infos) + 1} to {len(infos) + len(links)}")
    found.append(values)
    infos += read
    progress_.update(len(infos))
  return {name: np.concatenate([values[name] for values in found]) for name in found[0]}, infos


def load(path: str, extents: tuple[int, ...], flag: str) -> tuple[np.ndarray, configurations.Info]:
  """Links and what a file says, as `configurations.load`. extents: () for the file's own; flag: what sets them.

  Raises what `flowqcd.io.read` raises, naming the flag where extents are needed.
  """
  try:
    return configurations.load(path, extents or None)
  except NoExtentsError as error:
    raise NoExtentsError(f"{error}: say {flag}=T,X,Y,Z") from None


def groups(
  paths: Sequence[str], size: int, extents: tuple[int, ...], flag: str
) -> Iterator[tuple[np.ndarray, list[configurations.Info]]]:
  """Links [n, ...] of up to `size` files at a time, and what files say. extents, flag: as of `load`.

  Raises ValueError for a file of another lattice or group than the first one's, and what `load` raises.
  """
  first = None
  for start in range(0, len(paths), size):
    links, infos = [], []
    for path in paths[start : start + size]:
      u, info = load(path, extents, flag)
      first = first or info
      if (info.group, info.lattice) != (first.group, first.lattice):
        raise ValueError(
          f"{path} is {info.group} on {info.lattice}, and {paths[0]} is {first.group} on {first.lattice}: "
          "one chain has one theory"
        )
      links.append(u)
      infos.append(info)
    yield np.stack(links), infos


def padded(links: np.ndarray, size: int) -> np.ndarray:
  """`size` configurations, the first one again for those that are missing: no second program for a last group."""
  return np.concatenate([links, np.repeat(links[:1], size - len(links), axis=0)])


def rows(values: Mapping[str, np.ndarray], flow_time: float) -> list[Row]:
  """The table of observables [files, ...]: those of `series`, and the pion correlator at each time."""
  single = series(values) | {f"t2E(t={flow_time:g})": flow_time**2 * values["energy"]}
  single |= {f"pion({t})": x for t, x in enumerate(np.moveaxis(values["pion"], -1, 0))} if "pion" in values else {}
  return [estimate(name, np.asarray(x, float)) for name, x in single.items()]


def series(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Real numbers of each configuration by name."""
  found = {
    "plaquette": values["mean_plaquette"],
    "polyakov_re": np.real(values["polyakov"]),
    "polyakov_im": np.imag(values["polyakov"]),
    "energy": values["energy"],
  }
  if "charge" in values:
    found |= {"charge": values["charge"], "charge_squared": values["charge"] ** 2}
  return found


def estimate(name: str, x: np.ndarray) -> Row:
  """The mean of one chain [n] with the error of the Gamma method where there are ENOUGH; the method says so, or which.

  With fewer the error is that of independent configurations, sqrt(var / n), which is too small if they are not.
  """
  if len(x) == 1:
    return Row(name, float(x[0]), float("nan"), "one configuration")
  if len(x) < ENOUGH:
    return Row(name, float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))), "plain")
  try:
    found = statistics.gamma_method(x)
  except statistics.FrozenStreamsError:
    return Row(name, float(x.mean()), float("nan"), "constant")
  return Row(name, found.mean, found.error, "Gamma", found.tau_int, found.tau_int_error)


def notes(
  theory: Theory, paths: Sequence[str], infos: Sequence[configurations.Info], values: Mapping[str, np.ndarray]
) -> list[str]:
  """What to know before the table is believed."""
  found = []
  if len(paths) < ENOUGH:
    found.append(
      f"{len(paths)} configurations, and the Gamma method needs {ENOUGH}: errors are plain, as of independent ones"
    )
  else:
    for name, x in series(values).items():
      with_tau = estimate(name, np.asarray(x, float)).tau_int
      found += [] if with_tau is None else [f"{name}: {text}" for text in trust.of_chain((1, len(x)), with_tau)]
  for name in ("kappa", "boundary") if theory.num_flavours else ():
    stated = {getattr(info, name) for info in infos} - {None, getattr(theory, name)}
    if stated:
      found.append(f"the pion has {name} {getattr(theory, name)}, files state {', '.join(map(str, sorted(stated)))}")
  return found + [f"{path}: {text}" for path, info in zip(paths, infos) for text in info.warnings]


def markdown(theory: Theory, settings: Mapping[str, Any], table: Sequence[Row], warned: Sequence[str]) -> str:
  """The table with what was measured."""
  lattice = "x".join(map(str, settings["lattice"]))
  pion = (
    f"Pion from a point source at kappa = {theory.kappa}, boundary {theory.boundary}, D = 1 - kappa H."
    if theory.num_flavours
    else "No pion, since theory.num_flavours is 0."
  )
  lines = [
    f"# {settings['group']} on {lattice}\n",
    f"Wilson flow to t = {settings['flow_time']:g}. {pion}\n",
    "| observable | value | error | tau_int | method |",
    "|---|---|---|---|---|",
  ]
  for row in table:
    tau = "" if row.tau_int is None else report.number(row.tau_int, row.tau_int_error or 0.0)
    error = f"{row.error:.2g}" if np.isfinite(row.error) else ""
    lines.append(f"| {row.observable} | {report.number(row.value, row.error)} | {error} | {tau} | {row.method} |")
  return "\n".join([*lines, "", *(f"**Warning:** {text}.\n" for text in warned), "![History](observables.png)", ""])


def as_csv(table: Sequence[Row]) -> str:
  """The table for programs; an empty cell where there is no number."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(Row._fields)
  blank = lambda x: "" if x is None or x != x else x
  writer.writerows([blank(x) for x in row] for row in table)
  return text.getvalue()


def _draw(path: pathlib.Path, values: Mapping[str, np.ndarray], table: Sequence[Row]) -> None:
  from flowqcd.analysis import figures  # matplotlib is slow to import, and only needed here

  shown = {name: x for name, x in series(values).items() if name not in ("polyakov_im", "charge_squared")}
  pion = [row for row in table if row.observable.startswith("pion(")]
  points = statistics.Estimate(np.array([r.value for r in pion]), np.array([r.error for r in pion])) if pion else None
  figure = figures.histories(shown, points)
  with files.atomic(path) as handle:
    figure.savefig(handle, format="png")
