import json
import os
import signal
import subprocess
import sys
import time

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.io import checkpoint, ensembles, metrics


def _rows(start, count):
  x = np.arange(start, start + count, dtype=float)
  return {"x": x, "u": x[:, None, None] * np.ones((1, 2, 2)) * (1 + 1j)}


def test_append_read_and_reopen(tmp_path):
  store = ensembles.Ensemble.create(tmp_path / "e", {"beta": 1.0, "lattice": (4, 4)})
  store.append(_rows(0, 3), {"cpu_seconds": 0.5})
  store = ensembles.Ensemble.open(tmp_path / "e", {"beta": 1.0, "lattice": (4, 4)})
  store.append(_rows(3, 2), {"cpu_seconds": 0.25})
  np.testing.assert_array_equal(store.read("x"), np.arange(5.0))
  assert store.read("u").shape == (5, 2, 2) and store.read("u").dtype == np.complex128
  assert len(store) == 5 and store.num_parts == 2 and store.part_lengths("x") == [3, 2]
  np.testing.assert_array_equal(store.attributes("cpu_seconds"), [0.5, 0.25])
  store.export(tmp_path / "whole.h5")
  with h5py.File(tmp_path / "whole.h5") as whole:
    np.testing.assert_array_equal(whole["x"], np.arange(5.0))
    assert json.loads(whole.attrs["config"]) == {"beta": 1.0, "lattice": [4, 4]}
  with pytest.raises(FileExistsError):
    store.export(tmp_path / "whole.h5")


def test_other_configurations_and_columns_are_refused(tmp_path):
  store = ensembles.Ensemble.create(tmp_path / "e", {"beta": 1.0, "kappa": 0.1})
  store.append(_rows(0, 3))
  with pytest.raises(ensembles.EnsembleError, match="beta"):
    ensembles.Ensemble.open(tmp_path / "e", {"beta": 2.0, "kappa": 0.1})
  with pytest.raises(FileExistsError):
    ensembles.Ensemble.create(tmp_path / "e", {})
  with pytest.raises(ValueError, match="columns"):
    store.append({"x": np.zeros(2)})
  with pytest.raises(ValueError, match="'x' is float64"):
    store.append(_rows(3, 2) | {"x": np.zeros(2, np.float32)})
  with pytest.raises(ensembles.EnsembleError, match="not an ensemble"):
    ensembles.Ensemble.open(tmp_path / "none")
  assert len(store) == 3


def test_leftovers_of_a_kill_do_not_make_a_folder_occupied(tmp_path):
  (tmp_path / "e").mkdir()
  (tmp_path / "e" / ".ensemble.json.123.tmp").write_text("half")
  store = ensembles.Ensemble.open_or_create(tmp_path / "e", {})
  store.append(_rows(0, 2))
  assert len(ensembles.Ensemble.open(tmp_path / "e")) == 2
  assert not list((tmp_path / "e").glob(".*.tmp"))  # A writer removes them.
  (tmp_path / "f").mkdir()
  (tmp_path / "f" / "notes.txt").write_text("mine")
  with pytest.raises(FileExistsError):
    ensembles.Ensemble.create(tmp_path / "f", {})


def test_damage_is_named_and_not_passed_on(tmp_path):
  store = ensembles.Ensemble.create(tmp_path / "e", {})
  for start in (0, 500, 1000):
    store.append(_rows(start, 500))
  part = tmp_path / "e" / "part-000001.h5"
  good = part.read_bytes()
  part.write_bytes(good[: len(good) // 2])
  with pytest.raises(ensembles.EnsembleError, match="part-000001.h5 is damaged"):
    store.read("x")
  damaged = bytearray(good)
  at = good.find(np.arange(700.0, 720.0).tobytes())
  damaged[at] ^= 1  # One bit in the data.
  part.write_bytes(damaged)
  with pytest.raises(ensembles.EnsembleError, match=r"part-000001.h5 is damaged.* SHA-256.* repair"):
    store.read("x")
  part.unlink()
  with pytest.raises(ensembles.EnsembleError, match="no .*part-000001.h5"):
    store.read("x")


_APPENDER = """
import sys, numpy as np
from flowqcd.io import ensembles
store = ensembles.Ensemble.open_or_create(sys.argv[1], {"a": 1})
while True:
  n = len(store)
  store.append({"x": np.arange(n, n + 1000.0)})
"""


def test_a_kill_at_any_instant_loses_no_part(tmp_path):
  path, seen = tmp_path / "e", 0
  for delay in (0.0, 0.01, 0.023, 0.037, 0.05):
    process = subprocess.Popen([sys.executable, "-c", _APPENDER, str(path)])
    start = time.monotonic()
    while time.monotonic() - start < 60 and len(list(path.glob("part-*.h5"))) <= seen + 1:
      time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = ensembles.Ensemble.open(path, {"a": 1})
    x = store.read("x")
    np.testing.assert_array_equal(x, np.arange(len(x)))
    assert store.num_parts > seen
    seen = store.num_parts
  store.append({"x": np.arange(len(x), len(x) + 1000.0)})
  assert not list(path.glob(".*.tmp"))


def _state(step):
  return {"w": jnp.arange(4.0) * step, "key": jax.random.key_data(jax.random.key(step)), "n": jnp.asarray(step)}


def test_checkpoints_keep_count_and_restore(tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / "c", keep=2)
  assert saver.latest_step() is None
  with pytest.raises(checkpoint.CheckpointError, match="empty"):
    saver.restore(_state(0))
  for step in (1, 2, 3):
    saver.save(step, _state(step))
  saver.close()
  assert sorted(int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == [2, 3]
  saver = checkpoint.Checkpointer(tmp_path / "c", keep=2)
  found = saver.restore(_state(0))
  jax.tree.map(np.testing.assert_array_equal, found, _state(3))
  saver.close()


def test_a_damaged_checkpoint_is_refused_and_names_the_ones_before(tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / "c")
  for step in (1, 2, 3):
    saver.save(step, _state(step))
  saver.close()
  for file in (tmp_path / "c" / "3").rglob("*"):
    if file.is_file():
      file.write_bytes(b"junk")
  saver = checkpoint.Checkpointer(tmp_path / "c")
  with pytest.raises(
    checkpoint.CheckpointError, match=r"c/3 is damaged .*steps 2, 1: move \S*c/3 away .* from step 2$"
  ):
    saver.restore(_state(0))
  with pytest.raises(checkpoint.CheckpointError, match=r"c/3 is damaged"):
    checkpoint.read(tmp_path / "c", "w", {"w": jnp.zeros(4)})
  saver.close()
  (tmp_path / "c" / "3").rename(tmp_path / "aside")
  saver = checkpoint.Checkpointer(tmp_path / "c")
  assert int(saver.restore(_state(0))["n"]) == 2
  saver.save(3, _state(3))
  assert int(saver.restore(_state(0))["n"]) == 3
  saver.close()
  for file in (tmp_path / "c").rglob("*"):
    if file.is_file():
      file.write_bytes(b"junk")
  saver = checkpoint.Checkpointer(tmp_path / "c")
  with pytest.raises(checkpoint.CheckpointError, match="no older one is whole"):
    saver.restore(_state(0))
  saver.close()


def test_a_state_of_another_model_is_refused_and_kept(tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / "c")
  saver.save(1, _state(1))
  with pytest.raises(checkpoint.CheckpointError, match=r"another model: \['w'\] has shape \(4,\), not \(5,\)"):
    saver.restore(_state(0) | {"w": jnp.zeros(5)})
  # SU(3) has two networks a layer where U(1) has one.
  with pytest.raises(checkpoint.CheckpointError, match="another model: w2 is not in it$"):
    saver.restore(_state(0) | {"w2": jnp.zeros(4)})
  assert int(saver.restore(_state(0))["n"]) == 1
  saver.close()


def test_metrics_survive_torn_lines_and_rewind(tmp_path):
  path = tmp_path / "m.jsonl"
  writer = metrics.Writer(path)
  for step in range(1, 6):
    writer.write(step, loss=step * 0.5, ess=float("nan") if step == 2 else 0.1)
  with open(path, "a") as handle:
    handle.write('{"step": 6, "lo')
  found = metrics.read(path)
  np.testing.assert_array_equal(found["step"], np.arange(1, 6))
  assert np.isnan(found["ess"][1])
  writer = metrics.Writer(path, resume_step=3)
  writer.write(4, loss=9.0)
  np.testing.assert_array_equal(metrics.read(path)["loss"], [0.5, 1.0, 1.5, 9.0])
  path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
  with pytest.raises(ValueError, match="line 2"):
    metrics.read(path)


def test_json_takes_arrays_and_what_is_not_finite(tmp_path):
  value = {"a": np.float64(1.5), "b": np.array(2.0), "c": np.array([1.0, np.inf]), "d": (1, None)}
  metrics.write_json(tmp_path / "a.json", value)
  assert metrics.read_json(tmp_path / "a.json") == {"a": 1.5, "b": 2.0, "c": [1.0, None], "d": [1, None]}
  (tmp_path / "b.json").write_text("{")
  with pytest.raises(ValueError, match="b.json"):
    metrics.read_json(tmp_path / "b.json")


def test_one_field_of_a_state_is_read_whatever_the_others_are(tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / "c")
  params = ({"w": np.arange(4.0), "b": (np.ones(2), np.zeros(3))},)
  saver.save(3, {"params": params, "opt_state": [np.ones(7)]})
  saver.close()
  template = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), params)
  found = checkpoint.read(tmp_path / "c", "params", template)
  assert jax.tree.structure(found) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, found, params)
  assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.float32)}
  with pytest.raises(checkpoint.CheckpointError, match=r"another model: 0/w has shape \(4,\), not \(5,\)"):
    checkpoint.read(tmp_path / "c", "params", ({"w": np.zeros(5), "b": params[0]["b"]},))
  with pytest.raises(checkpoint.CheckpointError, match="no folder"):
    checkpoint.read(tmp_path / "none", "params", template)
