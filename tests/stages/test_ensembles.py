"""verify and repair of stored ensembles."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from flowqcd import tools
from flowqcd.io import ensembles, locks, metrics
from flowqcd.stages import ensembles as binary

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
  """A run's folder with a chain of four parts, what was measured on three of them, and another ensemble."""
  metrics.write_json(tmp_path / "config.json", {"seed": 1})
  metrics.write_json(tmp_path / "summary.json", {"plaquette": 0.5})
  for name, parts in (("flow", 2), ("hmc", 4), ("hmc-measured", 3)):
    store = ensembles.Ensemble.create(tmp_path / name, {"name": name})
    for i in range(parts):
      store.append({"x": np.arange(5.0) + 5 * i})
    store.close()
  return tmp_path


def _damage(part):
  data = bytearray(part.read_bytes())
  data[-30] ^= 4
  part.write_bytes(data)


def _files(folder):
  return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_verify_lists_every_part_and_changes_nothing(run, capsys):
  _damage(run / "hmc" / "part-000002.h5")
  # An ensemble that an earlier version began, and a part of that version.
  part, record = run / "flow" / "part-000001.h5", run / "flow" / "ensemble.json"
  part.write_bytes(part.read_bytes()[512:])
  record.write_text(json.dumps({"version": 1, "config": {}}, indent=2) + "\n")
  (run / "hmc-measured" / "part-000001.h5").unlink()
  before = _files(run)
  assert not binary.verify(run)
  assert capsys.readouterr().out.splitlines() == [
    f"{state:9}  {run}/{name}/part-{i:06d}.h5"
    for name, states in (
      ("flow", ["ok", "no digest"]),
      ("hmc", ["ok", "ok", "damaged", "ok"]),
      ("hmc-measured", ["ok", "missing", "ok"]),
    )
    for i, state in enumerate(states)
  ]
  assert binary.verify(run / "flow") and not binary.verify(run / "hmc")
  assert _files(run) == before


def test_repair_moves_what_is_damaged_and_what_hangs_on_it_and_deletes_nothing(run, capsys):
  _damage(run / "hmc" / "part-000001.h5")
  before = _files(run)
  hmc, measured = binary.repair(run)
  said = capsys.readouterr().out
  assert (hmc.kept, hmc.moved) == (1, [f"part-00000{i}.h5" for i in (1, 2, 3)])
  assert (measured.kept, measured.moved) == (1, [f"part-00000{i}.h5" for i in (1, 2)])
  assert f"{run}/hmc: part-000001.h5 to part-000003.h5 moved to {hmc.aside.name}; 1 kept" in said
  assert "summary.json may come from what was moved" in said
  for result, name in ((hmc, "hmc"), (measured, "hmc-measured")):
    assert result.aside.parent == run / name and result.aside.name.startswith("damaged-2")
  # Every file is there, where it was or aside.
  home = lambda path: pathlib.Path(*(x for x in path.parts if not x.startswith("damaged-")))
  assert {home(path): data for path, data in _files(run).items()} == before
  assert binary.verify(run)
  store = ensembles.Ensemble.open(run / "hmc")
  store.append({"x": np.arange(5.0) + 5})
  np.testing.assert_array_equal(store.read("x"), np.arange(10.0))
  store.close()
  assert len(ensembles.Ensemble.open(run / "flow")) == 10
  assert binary.repair(run) == []


def test_repair_twice_keeps_both_folders_apart(run):
  for part in (2, 1):
    _damage(run / "hmc" / f"part-00000{part}.h5")
    binary.repair(run / "hmc")
  assert len(list((run / "hmc").glob("damaged-*"))) == 2
  assert len(list((run / "hmc").glob("damaged-*/*.h5"))) == 3


def test_parts_after_a_gap_go_aside(run):
  (run / "hmc" / "part-000001.h5").unlink()
  hmc, measured = binary.repair(run / "hmc")
  assert (hmc.kept, hmc.moved) == (1, ["part-000002.h5", "part-000003.h5"]) and measured.kept == 1


def test_an_exported_file_is_verified(run, capsys):
  ensembles.Ensemble.open(run / "flow").export(run / "flow.h5")
  assert binary.verify(run / "flow.h5")
  _damage(run / "flow.h5")
  assert not binary.verify(run / "flow.h5")


def test_a_run_at_work_is_not_repaired(run):
  _damage(run / "hmc" / "part-000001.h5")
  hold = (
    "import sys; from flowqcd.io import locks; locks.hold(sys.argv[1]); print('held', flush=True); sys.stdin.readline()"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", hold, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
  )
  assert process.stdout.readline() == "held\n"
  before = _files(run)
  for path in (run, run / "hmc"):
    with pytest.raises(locks.LockedError, match=f"in use by process {process.pid}"):
      binary.repair(path)
  assert _files(run) == before and not binary.verify(run)
  process.communicate("\n")


def test_the_command_line(run):
  call = lambda *words: subprocess.run(
    [sys.executable, "-m", "experiments.ensembles", *map(str, words)], cwd=ROOT, capture_output=True, text=True
  )
  _damage(run / "hmc" / "part-000001.h5")
  assert (result := call("verify", run)).returncode == 1 and f"damaged    {run}/hmc/part-000001.h5" in result.stdout
  assert len(result.stdout.splitlines()) == 9
  result = call("verify", run / "none")
  assert (
    result.returncode == 2 and result.stderr == f"error: {run / 'none'} is no ensemble, and no folder of ensembles\n"
  )
  for words in (("mend", run), ("verify",), ("verify", run, run)):
    with pytest.raises(ValueError, match="say `verify PATH` or `repair PATH`"):
      tools.verify_or_repair(words)
  tools.verify_or_repair(("repair", run))
  tools.verify_or_repair(("verify", run))
