"""Damaged files: whatever is flipped, cut, added or zeroed, a reader says which file it is, or reads what was written."""

import random
import shutil
import warnings

import jax
import numpy as np
import pytest

from flowqcd.io import checkpoint, ensembles, files, metrics
from flowqcd.models import zoo

_COUNT = 300


def mutated(data, rng):
  """A copy with a few bytes flipped, an end cut or added, or a block zeroed."""
  data, kind = bytearray(data), rng.choice(("flip", "cut", "extend", "zero"))
  if kind == "flip":
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
      data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
  elif kind == "cut":
    del data[rng.randrange(len(data)) :]
  elif kind == "extend":
    data += rng.choice((rng.randbytes(rng.randrange(1, 600)), data[-rng.randrange(1, len(data)) :], bytes(512)))
  else:
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 16, 512, 4096)))
    data[start:stop] = bytes(stop - start)
  return bytes(data)


def tally(path, read, is_right, count=_COUNT, seed=0):
  """{outcome: how many}, of one file that is damaged in `count` ways in turn: refused, right, wrong, or another error."""
  good, rng, found = path.read_bytes(), random.Random(seed), {"refused": 0, "right": 0, "wrong": 0, "other error": 0}
  for _ in range(count):
    # Zeros over zeros are no damage.
    data = next(data for data in iter(lambda: mutated(good, rng), None) if data != good)
    path.write_bytes(data)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = read()
    except (files.StoreError, OSError) as error:
      # A message may name a file by its place in a step's folder.
      found["refused" if path.name in str(error) else "other error"] += 1
    except Exception:
      found["other error"] += 1
    else:
      found["right" if is_right(value) else "wrong"] += 1
  path.write_bytes(good)
  assert is_right(read())
  return found


def same(value, wanted):
  leaves = [jax.tree.leaves(x, is_leaf=lambda x: x is None) for x in (value, wanted)]
  alike = lambda a, b: np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)
  return jax.tree.structure(value) == jax.tree.structure(wanted) and all(map(alike, *leaves))


def part(folder):
  x = np.random.default_rng(0).normal(size=(6, 50))
  columns = {"u": x * (1 + 1j), "x": x, "n": np.arange(6, dtype=np.int32)}
  store = ensembles.Ensemble.create(folder, {})
  store.append(columns, {"cpu_seconds": 0.25})
  store.close()

  def read():
    found = ensembles.Ensemble.open(folder)
    return {name: found.read(name) for name in found.names}, found.attributes("cpu_seconds"), len(found)

  wanted = columns, np.array([0.25]), 6
  return folder / "part-000000.h5", read, lambda value: same(value, wanted)


def record(folder):
  wanted = {"ess": 0.25, "ok": True, "names": ["a", "b"], "n": 3, "nothing": None, "inner": {"x": [1.5, -2.0, 1e-30]}}
  metrics.write_json(folder / "a.json", wanted)
  return folder / "a.json", lambda: metrics.read_json(folder / "a.json"), lambda value: value == wanted


def lines(folder):
  path = folder / "a.jsonl"
  writer = metrics.Writer(path)
  for step in range(1, 9):
    writer.write(step, loss=1.0 / step, ess=0.125 * step)

  def is_right(value):
    # A last line without its end is one torn by a kill.
    steps = np.arange(1.0, 1 + len(value.get("step", ())))
    return len(steps) == 0 or same(value, {"step": steps, "loss": 1 / steps, "ess": 0.125 * steps})

  return path, lambda: metrics.read(path), is_right


def model(folder):
  path, wanted = folder / "a.safetensors", zoo.load("su3-4d-beta2")
  shutil.copy(zoo._FOLDER / "su3-4d-beta2.safetensors", path)
  is_right = lambda value: value.card == wanted.card and same(value.params, wanted.params)
  return path, lambda: zoo.load(path), is_right


@pytest.mark.parametrize("kind", [part, record, lines])
def test_damage_is_named_or_harmless(tmp_path, kind):
  folder = tmp_path / "e"
  if kind is not part:
    folder.mkdir()
  found = tally(*kind(folder))
  assert found["wrong"] == found["other error"] == 0, found
  assert found["refused"] > 0.5 * _COUNT, found


def test_damage_of_models_is_named(tmp_path):
  path, read, is_right = model(tmp_path)
  found = tally(path, read, is_right)
  assert found == {"refused": _COUNT, "right": 0, "wrong": 0, "other error": 0}


def checkpoints(folder):
  """The files of a step, and as above."""
  state = {"w": np.arange(40, dtype=np.float32), "b": (np.ones(3, np.float32), np.asarray(7, np.int32))}
  saver = checkpoint.Checkpointer(folder)
  saver.save(1, state)
  saver.close()

  def read():
    saver = checkpoint.Checkpointer(folder, read_only=True)
    try:
      return jax.tree.map(np.asarray, saver.restore(state))
    finally:
      saver.close()

  return [p for p in (folder / "1").rglob("*") if p.is_file()], read, lambda value: same(value, state)


def test_damage_of_checkpoints_is_named_or_harmless(tmp_path):
  paths, read, is_right = checkpoints(tmp_path / "c")
  total = {}
  for seed, path in enumerate(paths):
    found = tally(path, read, is_right, _COUNT // len(paths), seed)
    total[path.name] = found
    assert found["wrong"] == found["other error"] == 0, (path, found)
    covered = path.parent.name != "1" and path.name != "commit_success.txt"
    assert not covered or found["right"] == 0, (path, found)
