"""A disk that is full in mid-write: a clean error that names the path, and nothing half-written under the name."""

import subprocess
import sys

import pytest

_CHILD = """
import pathlib, resource, signal, sys
import numpy as np
from flowqcd.io import ensembles, files, metrics

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
x = np.random.default_rng(1).normal(size=(2, 10000))
if kind == "checkpoint":
  from flowqcd.io import checkpoint
  x = np.concatenate([x, x], axis=1).astype("float32")


def limited(size, path, write):
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
  try:
    write()
  except OSError as error:
    assert error.filename == str(path), error
    print("OSError", flush=True)
    return False
  except files.StoreError as error:
    assert str(path) in str(error), error
    print("StoreError", flush=True)
    return False
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
  print("written", flush=True)
  return True


sizes = [0, 300, 512, 1000, 4096, 80_000, 120_000, 160_000, 161_000, 162_000, 163_000, 1_000_000]
for i, size in enumerate(sizes if kind != "checkpoint" else sizes[1:-1:3] + sizes[-1:]):
  if kind == "part":
    store = ensembles.Ensemble.create(folder / str(i), {})
    path = folder / str(i) / "part-000000.h5"
    done = limited(size, path, lambda: store.append({"x": x, "y": x[0]}))
    assert path.exists() == done
    if done:
      np.testing.assert_array_equal(store.read("x"), x)
      np.testing.assert_array_equal(store.read("y"), x[0])
      continue
    store.append({"x": x, "y": x[0]})
    np.testing.assert_array_equal(store.read("x"), x)
  elif kind == "json":
    path = folder / "a.json"
    metrics.write_json(path, {"x": [1.0]})
    numbers = x[0].tolist()
    done = limited(size, path, lambda: metrics.write_json(path, {"x": numbers}))
    assert metrics.read_json(path)["x"] == (numbers if done else [1.0])
  elif kind == "checkpoint":
    saver = checkpoint.Checkpointer(folder / str(i))
    saver.save(1, {"x": x})
    done = limited(size, folder / str(i) / "2", lambda: saver.save(2, {"x": -x}))
    saver.close()
    saver = checkpoint.Checkpointer(folder / str(i))
    np.testing.assert_array_equal(saver.restore({"x": x})["x"], -x if done else x)
    saver.save(3, {"x": 2 * x})
    np.testing.assert_array_equal(saver.restore({"x": x})["x"], 2 * x)
    saver.close()
  assert not [p for p in folder.rglob(".*.tmp")]
"""


@pytest.mark.parametrize("kind", ["part", "json", "checkpoint"])
def test_a_full_disk_loses_nothing_and_says_so(tmp_path, kind):
  result = subprocess.run([sys.executable, "-c", _CHILD, str(tmp_path), kind], capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  outcomes = result.stdout.split()
  assert outcomes[0] != "written" and outcomes[-1] == "written"
  if kind == "part":  # 240,000 bytes of data.
    assert outcomes == ["OSError"] * 11 + ["written"]
