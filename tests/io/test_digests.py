"""Stores of versions without digests are read with a warning; what has one is verified, and other tools read it."""

import io
import json
import subprocess
import sys
import warnings

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from flowqcd.io import checkpoint, digests, ensembles, files, metrics


def _strip(path):
  """Of an HDF5 file, what earlier versions wrote."""
  path.write_bytes(path.read_bytes()[512:])


def _store(folder, parts=2):
  store = ensembles.Ensemble.create(folder, {"a": 1})
  for i in range(parts):
    store.append({"x": np.arange(3.0 * i, 3.0 * i + 3)})
  store.close()
  return store


def test_parts_are_plain_hdf5_for_other_tools(tmp_path):
  _store(tmp_path / "e").export(tmp_path / "whole.h5")
  for name, count in (("e/part-000001.h5", 3), ("whole.h5", 6)):
    with h5py.File(tmp_path / name) as part:
      np.testing.assert_array_equal(part["x"], np.arange(6.0)[-count:])
    assert ensembles.state(tmp_path / name) == "ok"
  data = (tmp_path / "whole.h5").read_bytes()
  (tmp_path / "whole.h5").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  assert ensembles.state(tmp_path / "whole.h5") == "damaged"


def _begun_by_an_earlier_version(store):
  """The same ensemble with the record that versions without digests wrote."""
  record = {"version": 1, "config": store.config}
  (store.path / "ensemble.json").write_text(json.dumps(record, indent=2) + "\n")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ensembles.Ensemble.open(store.path)


def test_a_part_that_lost_its_digest_is_damaged(tmp_path):
  store = _store(tmp_path / "e", 3)
  _strip(store._part(1))
  assert list(store.states().values()) == ["ok", "damaged", "ok"]
  with pytest.raises(ensembles.EnsembleError, match=r"part-000001.h5 is damaged"):
    ensembles.Ensemble.open(tmp_path / "e").read("x")


def test_parts_without_digests_are_read_with_one_warning(tmp_path):
  store = _begun_by_an_earlier_version(_store(tmp_path / "e", 3))
  for i in range(2):
    _strip(store._part(i))
  with pytest.warns(UserWarning, match="part-000000.h5 has no digest") as found:
    np.testing.assert_array_equal(store.read("x"), np.arange(9.0))
  assert len(found) == 1
  assert list(store.states().values()) == ["no digest", "no digest", "ok"]
  data = bytearray(store._part(1).read_bytes())
  data[:4000] = bytes(4000)
  store._part(1).write_bytes(data)
  with pytest.raises(ensembles.EnsembleError, match=r"part-000001.h5 is damaged"):
    store.read("x")


def test_a_digest_is_no_longer_that_of_what_was_read_before(tmp_path):
  store = _store(tmp_path / "e")
  store.read("x")
  data = bytearray(store._part(1).read_bytes())
  at = data.find(np.arange(3.0, 6.0).tobytes())
  data[at] ^= 1
  store._part(1).unlink()
  store._part(1).write_bytes(data)
  with pytest.raises(ensembles.EnsembleError, match=r"part-000001.h5 is damaged"):
    store.read("x")


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_part_that_another_process_has_open_is_not_called_damaged(tmp_path, mode):
  store = _store(tmp_path / "e", 1)
  hold = "import sys, h5py; f = h5py.File(*sys.argv[1:]); print('open', flush=True); sys.stdin.readline(); f.close()"
  process = subprocess.Popen(
    [sys.executable, "-c", hold, str(store._part(0)), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "open\n"
  if mode == "r+":
    with pytest.raises(ensembles.EnsembleError, match="part-000000.h5 is locked: another process has it open"):
      store.read("x")
    assert store.states() == {"part-000000.h5": "locked"}
    assert store.repair().moved == []
    store.close()
  process.communicate("\n")
  np.testing.assert_array_equal(store.read("x"), np.arange(3.0))


def test_missing_columns_and_attributes_are_named(tmp_path):
  store = _store(tmp_path / "e", 1)
  with pytest.raises(ensembles.EnsembleError, match="part-000000.h5 has no column 'y', only"):
    store.read("y")
  with pytest.raises(ensembles.EnsembleError, match="part-000000.h5"):
    store.attributes("cpu_seconds")
  with pytest.raises(ensembles.EnsembleError, match="part-000000.h5"):
    store.part_lengths("y")


def test_records(tmp_path):
  path, wanted = tmp_path / "a.json", {"x": 1.5, "y": {"z": [1, 2]}}
  metrics.write_json(path, wanted)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert metrics.read_json(path) == wanted
    # Another layout and order are the same record.
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert metrics.read_json(path) == wanted
  path.write_text(path.read_text().replace("1.5", "1.6"))
  with pytest.raises(files.StoreError, match=r"a.json is damaged or was altered"):
    metrics.read_json(path)
  path.write_text(json.dumps(wanted, indent=2) + "\n")
  with pytest.warns(UserWarning, match="a.json has no digest"):
    assert metrics.read_json(path) == wanted
  path.write_text("[1]")
  with pytest.raises(files.StoreError, match="a.json .*no JSON object"):
    metrics.read_json(path)
  with pytest.raises(ValueError, match="'sha256' of its own"):
    metrics.write_json(path, {"sha256": 1})


def test_damage_to_a_digests_name_does_not_pass_for_an_earlier_version(tmp_path):
  metrics.write_json(tmp_path / "a.json", {"x": 1.5})
  metrics.Writer(tmp_path / "m.jsonl").write(1, loss=0.5)
  for path, read in ((tmp_path / "a.json", metrics.read_json), (tmp_path / "m.jsonl", metrics.read)):
    path.write_text(path.read_text().replace("sha256", "sha257"))
    with pytest.raises(files.StoreError, match="it has no digest"):
      read(path)


def test_lines_of_earlier_versions_go_on(tmp_path):
  path = tmp_path / "m.jsonl"
  path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
  with pytest.warns(UserWarning, match="m.jsonl has lines without digests"):
    writer = metrics.Writer(path, resume_step=1)
  assert writer.last("loss", 0.0) == 0.5
  writer.write(2, loss=0.75)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    np.testing.assert_array_equal(metrics.read(path)["loss"], [0.5, 0.75])
  first, second = path.read_text().splitlines()
  for lines in ([second], [first, first, second], [second, first], [first, second.replace("0.75", "0.76")]):
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(files.StoreError, match=r"m.jsonl: line \d is not a metrics record"):
      metrics.read(path)


def test_checkpoints_of_earlier_versions_are_read_with_a_warning(tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / "c")
  saver.save(1, {"x": jnp.arange(3.0)})
  (tmp_path / "c" / "1" / "default" / "digests.json").unlink()
  with pytest.warns(UserWarning, match="checkpoint .*/1 has no digests"):
    np.testing.assert_array_equal(saver.restore({"x": jnp.zeros(3)})["x"], np.arange(3.0))
  saver.close()


def test_reading_a_runs_checkpoints_leaves_those_in_mid_write(tmp_path):
  saver = checkpoint.Checkpointer(tmp_path / "c")
  saver.save(1, {"x": jnp.arange(3.0)})
  saver.close()
  (tmp_path / "c" / "2.orbax-checkpoint-tmp").mkdir()
  before = sorted(p.as_posix() for p in tmp_path.rglob("*"))
  np.testing.assert_array_equal(checkpoint.read(tmp_path / "c", "x", jnp.zeros(3)), np.arange(3.0))
  assert sorted(p.as_posix() for p in tmp_path.rglob("*")) == before


def test_all_of_a_file_counts():
  image = b"\x89HDF\r\n\x1a\n" + bytes(1000)
  data = digests.block(image) + image
  assert digests.state(io.BytesIO(data)) == "ok"
  assert digests.state(io.BytesIO(image)) == "no digest"
  for at in range(len(data)):
    assert digests.state(io.BytesIO(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])) == "damaged"
    assert digests.state(io.BytesIO(data[:at])) == "damaged"
