"""Observables of files: of other codes' configurations, with errors, and what is refused."""

import csv
import dataclasses

import h5py
import lime_files
import numpy as np
import pytest
from fields import DATA, links, tmlqcd

from flowqcd import commands, presets
from flowqcd.analysis import statistics
from flowqcd.io import configurations, ildg
from flowqcd.io.files import NoExtentsError
from flowqcd.stages import measure_files
from flowqcd.theory import observables

BASE = presets.PRESETS["reproduce"]
BARE = str(DATA / "other-codes" / "julia_bare_record.ildg")
TMLQCD = [str(DATA / "tmlqcd" / f"nf2_b1.0_k0.1_apbc.{number}.lime") for number in ("0000", "0001")]


def _config(folder, theory=None, extents=(), **changes):
  measurement = dataclasses.replace(BASE.measurement, flow_time=0.5, extents=extents)
  theory = dataclasses.replace(BASE.theory, **(theory or {}))
  return dataclasses.replace(BASE, output=str(folder), theory=theory, measurement=measurement, **changes)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """Two files, the first one of bare data: folder, names of files, table."""
  folder, bare = (tmp_path_factory.mktemp("measured") / name for name in ("out", "bare.lime"))
  lime_files.write(bare, [record for record in lime_files.records(TMLQCD[0]) if record[0] == "ildg-binary-data"])
  paths = [str(bare), TMLQCD[1]]
  rows = commands.measure_files(_config(folder, extents=(4, 4, 4, 4)), paths)
  return folder, paths, {row.observable: row for row in rows}


def test_values_are_those_of_the_functions(measured):
  _, _, table = measured
  fields = [tmlqcd(number) for number in ("0000", "0001")]
  pion = np.array([observables.pion_correlator(u, 0.1) for u in fields])
  tables = [np.loadtxt(DATA / "tmlqcd" / f"gradflow.{number}.txt") for number in ("0000", "0001")]
  energy = [float(t[np.isclose(t[:, 0], 0.5), 3][0]) for t in tables]
  wanted = {
    "plaquette": [0.056279029829, 0.068365406],
    "polyakov_re": [observables.polyakov_loop(u).real for u in fields],
    "pion(0)": pion[:, 0],
    "pion(2)": pion[:, 2],
  }
  for name, values in wanted.items():
    assert table[name].value == pytest.approx(np.mean(values), rel=1e-6), name
    assert table[name].error == pytest.approx(abs(values[1] - values[0]) / 2, rel=1e-5), name
    assert table[name].method == "plain" and table[name].tau_int is None
  assert table["energy"].value == pytest.approx(np.mean(energy), rel=1e-3)
  assert table["t2E(t=0.5)"].value == pytest.approx(0.25 * table["energy"].value, rel=1e-12)


def test_what_is_written(measured):
  folder, paths, table = measured
  assert {path.name for path in folder.iterdir()} == {f"observables.{kind}" for kind in ("h5", "md", "csv", "png")}
  with open(folder / "observables.csv", newline="") as handle:
    read = {row["observable"]: row for row in csv.DictReader(handle)}
  assert list(read) == list(table)
  assert float(read["pion(1)"]["value"]) == table["pion(1)"].value and read["pion(1)"]["tau_int"] == ""
  with h5py.File(folder / "observables.h5") as file:
    assert [name.decode() for name in file["file"]] == paths
    assert file["mean_plaquette"][1] == pytest.approx(0.068365406, abs=1e-9) and file["pion"].shape == (2, 4)
  text = (folder / "observables.md").read_text()
  assert "kappa = 0.1, boundary (-1.0, 1.0, 1.0, 1.0)" in text and "2 configurations" in text and "| plain |" in text


def test_nothing_is_overwritten(measured):
  folder, _, _ = measured
  before = {path: path.read_bytes() for path in folder.iterdir()}
  with pytest.raises(FileExistsError, match="is not empty; choose another --config.output"):
    commands.measure_files(_config(folder), TMLQCD)
  assert before == {path: path.read_bytes() for path in folder.iterdir()}
  with pytest.raises(ValueError, match="needs --config.output=FOLDER"):
    commands.measure_files(BASE, TMLQCD)


@pytest.mark.parametrize("paths", [[BARE], [TMLQCD[0], BARE]])
def test_bare_data_need_extents(tmp_path, paths):
  with pytest.raises(
    NoExtentsError, match=r"bare_record.ildg.* fit, .*=4,4,4,4 .*--config.measurement.extents=T,X,Y,Z"
  ):
    commands.measure_files(_config(tmp_path / "out"), paths)
  assert not any((tmp_path / "out").glob("observables*"))


def test_files_of_two_theories_are_no_chain(tmp_path):
  for name, lattice in (("a", (4, 4)), ("b", (4, 6))):
    ildg.write(tmp_path / name, np.asarray(links(1, lattice)))
  config = _config(tmp_path / "out", {"num_flavours": 0})
  with pytest.raises(ValueError, match=r"b is U\(1\) on \(4, 6\), and .*a is U\(1\) on \(4, 4\)"):
    commands.measure_files(config, [str(tmp_path / "a"), str(tmp_path / "b")])
  ildg.write(tmp_path / "odd", np.asarray(links(1, (4, 5))))
  with pytest.raises(ValueError, match="num_flavours=0 leaves the pion out"):
    commands.measure_files(_config(tmp_path / "c"), [str(tmp_path / "odd")])


def test_errors_are_those_of_a_chain_where_there_are_enough():
  x = np.convolve(np.random.default_rng(1).normal(size=400), np.ones(8), mode="valid")
  row, chain = measure_files.estimate("a", x), statistics.gamma_method(x)
  assert (row.method, row.error, row.tau_int) == ("Gamma", chain.error, chain.tau_int)
  assert row.error > 2 * x.std() / len(x) ** 0.5
  few = measure_files.estimate("a", x[: measure_files.ENOUGH - 1])
  assert few.method == "plain" and few.tau_int is None
  assert measure_files.estimate("a", np.ones(50)).method == "constant"
  one = measure_files.estimate("a", x[:1])
  assert one.method == "one configuration" and np.isnan(one.error)


def test_files_that_state_other_quarks_are_named():
  info = configurations.load(TMLQCD[0])[1]
  theory = dataclasses.replace(BASE.theory, kappa=0.12)
  (few, said) = measure_files.notes(theory, TMLQCD[:1], [info], {})
  assert said == "the pion has kappa 0.12, files state 0.1" and few.startswith("1 configurations")
