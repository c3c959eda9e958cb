"""Every kind of file that the project reads, small, to be damaged: `run` says what reading damaged copies gives."""

from __future__ import annotations

import gzip
import pathlib
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from fields import DATA, haar_in_numpy, openqcd_bytes
from mutations import Outcome, mutants, outcome

from flowqcd.io import checkpoint, configurations, ensembles, files, hdf5, ildg, metrics, milc, nersc, openqcd
from flowqcd.models import zoo


class Case(NamedTuple):
  """A good file, how to read it, and whether what was read is what it held.

  unvouched: a pattern of the warning that excuses a wrong value, where nothing in the format could tell.
  """

  path: pathlib.Path
  read: Callable[[], Any]
  is_right: Callable[[Any], bool]
  unvouched: str = r"(?!)"


def run(case: Case, count: int, seed: int) -> list[Outcome]:
  """Outcomes of `count` damaged copies in the file's place, which is as before afterwards.

  A refusal is a StoreError or OSError that names the file. Raises AssertionError, with the copy's number, for a wrong value
  or any other error.
  """
  good, found = case.path.read_bytes(), []
  assert case.is_right(_quiet(case.read))
  for i, mutant in enumerate(mutants(good, count, seed)):
    case.path.write_bytes(mutant.data)
    try:
      found.append(outcome(case.read, case.is_right, (files.StoreError, OSError), case.path.name, case.unvouched))
    except Exception as error:
      raise AssertionError(f"{case.path.name}, seed {seed}, mutant {i} ({mutant.kind}): {error!r}") from error
  case.path.write_bytes(good)
  return found


def _quiet(read: Callable[[], Any]) -> Any:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return read()


# Configurations.


def _ildg() -> bytes:
  return (DATA / "numpy" / "rand_2222.ildg").read_bytes()


def _nersc(name: str = "rand_2222") -> bytes:
  return (DATA / "numpy" / f"{name}.nersc").read_bytes()


def _plain() -> bytes:
  """Bare LIME: neither description nor checksum."""
  good = _ildg()
  start = good.index(b"ildg-binary-data") - 16
  record = bytearray(good[start : start + 144 + 9216])
  record[6:8] = b"\xc0\0"
  return bytes(record)


def _hdf5() -> bytes:
  with tempfile.TemporaryDirectory() as folder:
    hdf5.write(pathlib.Path(folder) / "a", haar_in_numpy((2, 2, 2, 2)), notes={"beta": 5.5})
    return (pathlib.Path(folder) / "a").read_bytes()


def _milc() -> bytes:
  """Links of the public file on 2^4: eight steps from it in every direction are no lattice, but SU(3) they are."""
  good = (DATA / "other-codes" / "milc_v5_l4444").read_bytes()
  body = good[96 : 96 + 16 * 288]
  words = [int(w) for w in np.frombuffer(body, "<u4")]
  sums = [0, 0]
  for i, w in enumerate(words):
    for j, n in enumerate((i % 29, i % 31)):
      sums[j] ^= (w << n | w >> (32 - n)) & 0xFFFFFFFF
  return struct.pack("<5i", 20103, 2, 2, 2, 2) + good[20:88] + struct.pack("<2I", *sums) + body


_UNVOUCHED = "no SciDAC checksum|states no CHECKSUM"
_ROUNDING = 2e-10
"""NERSC's checksum is a sum, which exchanged last digits leave, and openQCD has none: links must be unitary to 1e-10."""


def _configuration(
  make: Callable[[], bytes], read: Callable, most: float = 0.0
) -> Callable[[pathlib.Path], list[Case]]:
  def cases(folder: pathlib.Path) -> list[Case]:
    path = folder / "a.configuration"
    path.write_bytes(make())
    wanted = _quiet(lambda: read(path))[0]
    same = lambda value: value[0].shape == wanted.shape and np.abs(value[0] - wanted).max() <= most
    return [Case(path, lambda: read(path), same, _UNVOUCHED)]

  return cases


CONFIGURATIONS = {
  "ildg": _configuration(_ildg, ildg.read),
  "ildg.gz": _configuration(lambda: gzip.compress(_ildg(), mtime=0), ildg.read),
  "nersc": _configuration(_nersc, nersc.read, _ROUNDING),
  "nersc 2324": _configuration(lambda: _nersc("rand_2324"), nersc.read, _ROUNDING),
  "plain lime": _configuration(_plain, lambda path: ildg.read(path, extents=(2, 2, 2, 2))),
  "milc": _configuration(_milc, milc.read),
  "hdf5": _configuration(_hdf5, configurations.read),
  "openqcd": _configuration(lambda: openqcd_bytes(haar_in_numpy((2, 2, 2, 2))), openqcd.read, _ROUNDING),
}


# What the project stores.


def _same(value: Any, wanted: Any) -> bool:
  leaves = [jax.tree.leaves(x, is_leaf=lambda x: x is None) for x in (value, wanted)]
  alike = lambda a, b: np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)
  return jax.tree.structure(value) == jax.tree.structure(wanted) and all(map(alike, *leaves))


def _part(folder: pathlib.Path) -> list[Case]:
  x = np.random.default_rng(0).normal(size=(6, 50))
  columns = {"u": x * (1 + 1j), "x": x, "n": np.arange(6, dtype=np.int32)}
  store = ensembles.Ensemble.create(folder / "e", {})
  store.append(columns, {"cpu_seconds": 0.25})
  store.close()

  def read() -> tuple:
    found = ensembles.Ensemble.open(folder / "e")
    return {name: found.read(name) for name in found.names}, found.attributes("cpu_seconds"), len(found)

  wanted = columns, np.array([0.25]), 6
  return [Case(folder / "e" / "part-000000.h5", read, lambda value: _same(value, wanted))]


def _record(folder: pathlib.Path) -> list[Case]:
  path = folder / "a.json"
  wanted = {"ess": 0.25, "ok": True, "names": ["a", "b"], "n": 3, "nothing": None, "inner": {"x": [1.5, -2.0, 1e-30]}}
  metrics.write_json(path, wanted)
  return [Case(path, lambda: metrics.read_json(path), lambda value: value == wanted)]


def _lines(folder: pathlib.Path) -> list[Case]:
  path = folder / "a.jsonl"
  writer = metrics.Writer(path)
  for step in range(1, 9):
    writer.write(step, loss=1.0 / step, ess=0.125 * step)

  def is_right(value: dict) -> bool:
    # A last line without its end is one torn by a kill.
    steps = np.arange(1.0, 1 + len(value.get("step", ())))
    return len(steps) == 0 or _same(value, {"step": steps, "loss": 1 / steps, "ess": 0.125 * steps})

  return [Case(path, lambda: metrics.read(path), is_right)]


def _model(folder: pathlib.Path) -> list[Case]:
  path, wanted = folder / "a.safetensors", zoo.load("su3-4d-beta2")
  shutil.copy(zoo._FOLDER / "su3-4d-beta2.safetensors", path)
  return [
    Case(path, lambda: zoo.load(path), lambda value: value.card == wanted.card and _same(value.params, wanted.params))
  ]


def _checkpoint(folder: pathlib.Path) -> list[Case]:
  """One case for each file of a step."""
  state = {"w": np.arange(40, dtype=np.float32), "b": (np.ones(3, np.float32), np.asarray(7, np.int32))}
  saver = checkpoint.Checkpointer(folder / "c")
  saver.save(1, state)
  saver.close()

  def read() -> Any:
    saver = checkpoint.Checkpointer(folder / "c", read_only=True)
    try:
      return jax.tree.map(np.asarray, saver.restore(state))
    finally:
      saver.close()

  paths = sorted(p for p in (folder / "c" / "1").rglob("*") if p.is_file())
  return [Case(path, read, lambda value: _same(value, state)) for path in paths]


STORES = {
  "HDF5 part": _part,
  "JSON record": _record,
  "JSON lines": _lines,
  "model": _model,
  "checkpoint": _checkpoint,
}
