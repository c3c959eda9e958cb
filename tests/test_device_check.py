"""`make device-check` on a CPU: its table, what it stores, and that it sees a wrong number."""

import json

import device_check
import hot_paths
import numpy as np
import pytest

NAME = "hopping draw"


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
  folder = tmp_path_factory.mktemp("device")
  status = device_check.main([str(folder), "--small", f"--words={NAME}"])
  return status, json.loads(next(folder.glob("device_check-*.json")).read_text())


def test_all_is_well_on_a_cpu(checked):
  status, found = checked
  assert status == 0 and found["versions"]["backend"] == "cpu" and found["roof"]["bandwidth"] > 1e8
  assert {(row["path"], row["precision"]) for row in found["numbers"]} == {
    (NAME, "single"), (NAME, "double"), ("hmc, split", "double"),
  }  # fmt: skip
  assert all(row["good"] for row in found["numbers"])
  (rate,) = found["rates"]
  assert rate["rate"] == NAME and rate["per_second"] > 1


def test_a_wrong_number_is_seen(tmp_path, monkeypatch, capsys):
  stored = json.loads(device_check.STORED.read_text())
  stored[NAME]["double"][1][1] *= 1 + 1e-5
  monkeypatch.setattr(device_check, "STORED", tmp_path / "stored.json")
  device_check.STORED.write_text(json.dumps(stored))
  monkeypatch.setattr(device_check, "split", lambda table: True)
  monkeypatch.setattr(device_check, "speeds", lambda *_: True)
  assert device_check.main([str(tmp_path), f"--words={NAME}"]) == 1
  assert "WRONG" in capsys.readouterr().out


def test_what_a_compiler_refuses_and_what_comes_late_are_named(tmp_path, monkeypatch, capsys):
  def refused(precision):
    raise RuntimeError("no such tile")

  monkeypatch.setattr(hot_paths, "PATHS", {NAME: refused})
  table = device_check.Table(tmp_path)
  assert not device_check.numbers(table, [], end=np.inf)
  assert "refused: no such tile" in capsys.readouterr().out
  assert not device_check.numbers(table, [], end=0.0)
  assert "not in time" in capsys.readouterr().out


def test_a_word_that_chooses_nothing_is_refused(tmp_path, capsys):
  with pytest.raises(SystemExit):
    device_check.main([str(tmp_path / "out"), "--words=hmv"])
  assert "no path or rate has 'hmv' in its name; there are trivializing sample" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


def test_digests_tell_arrays_apart():
  x = np.arange(6.0).reshape(2, 3)
  assert device_check.deviation(device_check.digest(x), device_check.digest(x)) == 0
  assert device_check.deviation(device_check.digest(x[::-1]), device_check.digest(x)) > 5e-3
  assert device_check.deviation(device_check.digest(x * 1j), device_check.digest(x)) > 0.1
  assert device_check.deviation(device_check.digest(x * np.nan), device_check.digest(x)) == np.inf
  assert device_check.deviation(device_check.digest((x, x)), device_check.digest(x)) == np.inf


def test_all_paths_are_stored():
  stored = json.loads(device_check.STORED.read_text())
  assert stored.keys() == hot_paths.PATHS.keys()
  assert all(digest for path in stored.values() for digest in path.values())
