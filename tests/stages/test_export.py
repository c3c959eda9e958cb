"""`export`: what is written is what was stored, to the bit, with its weights; and chains without them."""

import csv
import hashlib
import os
import pathlib
import subprocess
import sys

import lime_files
import numpy as np
import pytest
from fields import haar_in_numpy, links

import flowqcd
from flowqcd.io import ensembles, fields, metrics, nersc
from flowqcd.stages import export

_WEIGHTS = [0.0, -3.0, 0.5, -40.0, 0.25]


def _config(nc, lattice, quarks):
  theory = {"nc": nc, "lattice": lattice, "beta": 1.25, "kappa": 0.1, "num_flavours": 2 * quarks}
  theory["boundary"] = [-1.0] + [1.0] * (len(lattice) - 1)
  return {f"theory.{name}": value for name, value in theory.items()} | {"seed": 5, "hmc.streams": 2}


def _run(folder, u, quarks=True):
  """A run's folder with five weighted samples in two parts, and two streams of a chain of the same links."""
  u = np.asarray(u)
  config = _config(u.shape[2], list(u.shape[4:]), quarks)
  flow = ensembles.Ensemble.create(folder / "flow", config)
  log_w = np.array(_WEIGHTS)
  for rows in (slice(0, 3), slice(3, 5)):
    flow.append({"u": u[rows], "log_w": log_w[rows]})
  hmc = ensembles.Ensemble.create(folder / "hmc", config)
  hmc.append({"u": u[:4]})
  hmc.append({"u": u[:4].conj()})
  for store in (flow, hmc):
    store.close()
  return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return _run(tmp_path_factory.mktemp("run"), [haar_in_numpy((4, 2, 2, 3), seed) for seed in range(5)])


def _read(path):
  with lime_files.silence():
    return flowqcd.io.read(path)


def _table(folder):
  with open(folder / "configurations.csv", newline="") as handle:
    return list(csv.DictReader(handle))


@pytest.mark.parametrize("form", ["ildg", "nersc", "hdf5"])
@pytest.mark.parametrize("precision", [0, 32])
def test_round_trip(run, tmp_path, form, precision):
  out = tmp_path / "out"
  export.run(run, export.Plan(to=str(out), format=form, precision=precision))
  u = ensembles.Ensemble.open(run / "flow").read("u")
  rows = _table(out)
  assert len(rows) == 5 == len(list(out.glob(f"flow-*.{form}")))
  for i, row in enumerate(rows):
    path = out / row["file"]
    back, info = _read(path)
    np.testing.assert_array_equal(back, u[i].astype(np.complex64) if precision else u[i])
    assert float(row["log_w"]) == _WEIGHTS[i] and int(row["sample"]) == i
    assert float(row["plaquette"]) == fields.plaquette(u[i])
    assert info.plaquette == pytest.approx(fields.plaquette(u[i]), abs=1e-7 if precision else 1e-14)
    assert info.plaquette_stated == pytest.approx(info.plaquette, abs=1e-6 if precision else 1e-12)
    assert row["sha256_of_file"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (info.beta, info.kappa, info.boundary) == (1.25, 0.1, (-1.0, 1.0, 1.0, 1.0))
  record = metrics.read_json(out / "configurations.json")
  assert [line["log_w"] for line in record["files"]] == _WEIGHTS and record["config"]["seed"] == 5


def test_streams_of_hmc_one_after_another(run, tmp_path):
  export.run(run, export.Plan(to=str(tmp_path / "out"), ensemble="hmc"))
  u = ensembles.Ensemble.open(run / "flow").read("u")
  # Parts hold two configurations of each stream.
  wanted = [u[0], u[1], u[0].conj(), u[1].conj(), u[2], u[3], u[2].conj(), u[3].conj()]
  names = sorted(path.name for path in (tmp_path / "out").glob("*.ildg"))
  assert names == [f"hmc-{stream:03d}-{i:06d}.ildg" for stream in (0, 1) for i in range(4)]
  for name, links_ in zip(names, wanted):
    np.testing.assert_array_equal(_read(tmp_path / "out" / name)[0], links_)
  assert "log_w" not in _table(tmp_path / "out")[0]


def test_a_chain_needs_no_weights(run, tmp_path):
  rows = export.run(run / "flow", export.Plan(to=str(tmp_path / "out"), chain=True))
  samples = [row["sample"] for row in rows]
  u = ensembles.Ensemble.open(run / "flow").read("u")
  # Weight e^-40 beside e^0.5 is never taken, and a larger weight always is.
  assert len(rows) == 5 and samples[0] == 0 and samples[2:4] == [2, 2] and rows[3]["accepted"] == 0
  assert "log_w" not in rows[0]
  for row in rows:
    np.testing.assert_array_equal(_read(tmp_path / "out" / row["file"])[0], u[row["sample"]])
  with pytest.raises(ValueError, match="hmc has no weights"):
    export.run(run, export.Plan(to=str(tmp_path / "b"), ensemble="hmc", chain=True))


def test_the_chain_visits_samples_by_their_weights(tmp_path):
  """Of two kinds of samples with weights 1 and 3, as many, the chain is on the heavy ones three quarters of the time."""
  folder, num = tmp_path / "flow", 4000
  heavy = np.random.default_rng(3).integers(2, size=num)
  u = np.exp(1j * heavy)[:, None, None, None, None, None] * np.ones((1, 2, 1, 1, 2, 2))
  store = ensembles.Ensemble.create(folder, _config(1, [2, 2], False))
  store.append({"u": u, "log_w": np.log(1 + 2.0 * heavy)})
  found = [heavy[item.place["sample"]] for item in export._chain(store)]
  assert abs(np.mean(found) - 0.75) < 5 * (0.75 * 0.25 * 3 / num) ** 0.5


def test_other_groups_keep_their_type(tmp_path):
  run = _run(tmp_path / "run", [links(1, (4, 6), seed) for seed in range(5)], quarks=False)
  for form in ("ildg", "hdf5"):
    export.run(run, export.Plan(to=str(tmp_path / form), format=form))
    back, info = _read(tmp_path / form / f"flow-000003.{form}")
    np.testing.assert_array_equal(back, links(1, (4, 6), 3))
    assert (info.group, info.lattice, info.beta, info.kappa, info.boundary) == ("U(1)", (4, 6), 1.25, None, None)
  with pytest.raises(ValueError, match=r"SU\(3\) links .*, not U\(1\) links"):
    export.run(run, export.Plan(to=str(tmp_path / "nersc"), format="nersc"))
  assert not (tmp_path / "nersc").exists()


def test_su3_in_two_dimensions_goes_into_hdf5_alone(tmp_path):
  run = _run(tmp_path / "run", [links(3, (2, 3), seed) for seed in range(5)])
  with pytest.raises(ValueError, match="--format=hdf5 holds every group"):
    export.run(run, export.Plan(to=str(tmp_path / "out")))
  export.run(run, export.Plan(to=str(tmp_path / "out"), format="hdf5"))
  assert _read(tmp_path / "out" / "flow-000000.hdf5")[1].lattice == (2, 3)


def test_single_precision_stays_so(tmp_path):
  u = [haar_in_numpy((2, 2, 2, 2), seed).astype(np.complex64) for seed in range(5)]
  export.run(_run(tmp_path / "run", u), export.Plan(to=str(tmp_path / "out"), format="nersc"))
  back, info = _read(tmp_path / "out" / "flow-000004.nersc")
  np.testing.assert_array_equal(back, u[4])
  assert info.precision == 32


def test_mistakes_write_nothing(run, tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.tex").write_text("all my work")
  for plan, match in (
    (export.Plan(to=str(tmp_path / "mine")), "not empty"),
    (export.Plan(), "--to=FOLDER"),
    (export.Plan(to=str(tmp_path / "a"), format="gif"), "gif"),
    (export.Plan(to=str(tmp_path / "a"), precision=16), "must be 32 or 64"),
    (export.Plan(to=str(tmp_path / "a"), ensemble="none"), "no ensemble.json"),
  ):
    with pytest.raises((ValueError, FileExistsError), match=match):
      export.run(run, plan)
  assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.tex"]


def test_a_nersc_header_says_what_the_links_are(run, tmp_path):
  export.run(run, export.Plan(to=str(tmp_path / "out"), format="nersc"))
  header = nersc.read(tmp_path / "out" / "flow-000001.nersc")[1].header
  assert header["BOUNDARY_4"] == "PERIODIC" and header["FERMION_BOUNDARY"] == "-1 1 1 1" and header["KAPPA"] == "0.1"


def test_the_program_writes_what_the_function_does(run, tmp_path):
  root = pathlib.Path(__file__).parents[2]
  words = [str(run), f"--to={tmp_path / 'out'}", "--format=nersc", "--chain"]
  command = [sys.executable, "-m", "experiments.export", *words]
  done = subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  rows = export.run(run, export.Plan(to=str(tmp_path / "b"), format="nersc", chain=True))
  assert [row["sha256_of_file"] for row in _table(tmp_path / "out")] == [row["sha256_of_file"] for row in rows]
