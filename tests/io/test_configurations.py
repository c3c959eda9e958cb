"""One entry for every format: what it finds in files of other codes, how strict it is, and groups other than SU(3)."""

import gzip

import h5py
import lime_files
import numpy as np
import pytest
from fields import DATA, haar_in_numpy, links, openqcd_bytes

import flowqcd
from flowqcd.io import configurations, ensembles, fields, hdf5, ildg, nersc
from flowqcd.io.files import FieldFileError, NoExtentsError, OtherExtentsError
from flowqcd.theory import observables

OTHERS = DATA / "other-codes"


@pytest.fixture(autouse=True)
def _no_warnings():
  with lime_files.silence():
    yield


@pytest.mark.parametrize("name, form, plaquette, checksum", [
  ("other-codes/milc_v5_l4444", "MILC version 5", 0.5948501589, "verified"),
  ("other-codes/milc_l4444.scidac", "SciDAC", 0.5948501589, "verified"),
  ("tmlqcd/nf2_b1.0_k0.1_apbc.0000.lime", "ILDG", 0.056279029829, "verified"),
  ("numpy/rand_2222.nersc", "NERSC", 0.00841516112473076, "verified"),
])  # fmt: skip
def test_files_of_other_codes(name, form, plaquette, checksum):
  u, info = flowqcd.io.read(DATA / name)
  assert (info.format, info.group, info.nc, info.checksum) == (form, "SU(3)", 3, checksum)
  assert info.plaquette == pytest.approx(plaquette, abs=1e-9) and info.lattice == u.shape[3:] and info.warnings == ()
  assert info.plaquette_stated in (None, plaquette)


def test_what_tmlqcd_states_of_the_theory():
  _, info = configurations.read(DATA / "tmlqcd" / "nf2_b1.0_k0.1_apbc.0001.lime")
  assert (info.beta, info.kappa, info.boundary) == (1.0, 0.1, None)


def test_drift_is_a_warning_an_error_or_taken_away():
  path = OTHERS / "qdp_double_from_single.lime"
  with pytest.warns(UserWarning, match=r"qdp_double.*: links at 64 bits are special unitary to 4\.\de-07") as said:
    _, info = flowqcd.io.read(path)
  assert len(said) == 1 and info.warnings == (str(said[0].message).split(": ", 1)[1],)
  assert info.plaquette == pytest.approx(0.0382422893, abs=1e-9)
  with pytest.raises(FieldFileError, match=r"qdp_double.*to 4\.\de-07 only .* reading is strict \(ILDG format\)"):
    flowqcd.io.read(path, strict=True)
  u, mended = flowqcd.io.read(path, strict=True, reunitarise=True)
  assert fields.drift(u).worst < 1e-14 and mended == info._replace(warnings=())


def test_a_bare_record_needs_extents_and_others_must_have_those_given():
  path = OTHERS / "julia_bare_record.ildg"
  with pytest.raises(NoExtentsError, match=r"julia_bare_record.ildg.*extents=4,4,4,4 .*\(LIME format\)"):
    flowqcd.io.read(path)
  with pytest.warns(UserWarning, match="no SciDAC checksum"):
    _, info = flowqcd.io.read(path, (4, 4, 4, 4))
  assert (info.format, info.checksum) == ("bare LIME", "absent")
  assert info.plaquette == pytest.approx(0.614790430840494, abs=1e-14)
  for name in ("other-codes/milc_v5_l4444", "numpy/near_4444.nersc", "numpy/near_4444.ildg"):
    with pytest.raises(OtherExtentsError, match=r"the caller says \(2, 8, 4, 4\)"):
      flowqcd.io.read(DATA / name, (2, 8, 4, 4))


def test_openqcd_is_known_by_its_size_in_gzip_too(tmp_path):
  u = haar_in_numpy((4, 2, 2, 6))
  for content in (openqcd_bytes(u), gzip.compress(openqcd_bytes(u))):
    (tmp_path / "a").write_bytes(content)
    back, info = flowqcd.io.read(tmp_path / "a")
    np.testing.assert_array_equal(back, u)
    assert (info.format, info.checksum) == ("openQCD", "none")
    assert info.plaquette_stated == pytest.approx(fields.plaquette(u), abs=1e-14)


@pytest.mark.parametrize("content, match", [
  (b"nothing that anybody knows, but long enough for a header", r"no known format \(it starts 6e6f7468.*LIME, NERSC"),
  (b"", "no known format"),
  (b"PK\3\4" + bytes(60), "zip or npz format, which cannot be read"),
])  # fmt: skip
def test_no_configuration(tmp_path, content, match):
  (tmp_path / "a").write_bytes(content)
  with pytest.raises(FieldFileError, match=f"{tmp_path / 'a'}.*{match}"):
    flowqcd.io.read(tmp_path / "a")


def test_damage_is_told_with_the_format(tmp_path):
  for name, form in (("numpy/rand_2222.nersc", "NERSC"), ("other-codes/milc_v5_l4444", "MILC version 5")):
    data = bytearray((DATA / name).read_bytes())
    data[-3] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FieldFileError, match=rf"checksum .* \({form} format\)"):
      flowqcd.io.read(tmp_path / "a")


def test_a_nersc_file_whose_links_are_not_periodic(tmp_path):
  content = (DATA / "numpy" / "rand_2222.nersc").read_bytes()
  (tmp_path / "a").write_bytes(content.replace(b"BOUNDARY_4 = PERIODIC", b"BOUNDARY_4 = ANTIPERIODIC"))
  with pytest.warns(UserWarning, match="BOUNDARY_4 is 'ANTIPERIODIC': links are taken as they are"):
    flowqcd.io.read(tmp_path / "a")


NOTES = {"beta": 2.5, "kappa": 0.125, "boundary": "-1 1"}


@pytest.mark.parametrize("module", [ildg, hdf5])
@pytest.mark.parametrize(
  "nc, lattice", [(1, (4, 6)), (2, (3, 4)), (1, (2, 3, 4)), (2, (2, 3, 4, 5)), (1, (5, 4, 3, 2))]
)
@pytest.mark.parametrize("precision", [64, 32])
def test_other_groups_are_kept_as_what_they_are(tmp_path, module, nc, lattice, precision):
  u, path = np.asarray(links(nc, lattice)), tmp_path / "a"
  module.write(path, u, precision, notes=NOTES)
  back, info = flowqcd.io.read(path)
  assert back.dtype == np.complex128
  np.testing.assert_array_equal(back, u if precision == 64 else u.astype(np.complex64))
  assert (info.group, info.nc, info.lattice, info.precision) == (fields.GROUPS[nc], nc, lattice, precision)
  assert info.plaquette == pytest.approx(float(observables.mean_plaquette(u)), abs=1e-7 if precision == 32 else 1e-14)
  assert (info.beta, info.kappa) == (2.5, 0.125)
  assert info.boundary == ((-1.0, 1.0) if len(lattice) == 2 else None)
  content = path.read_bytes()
  assert f"{'u1' if nc == 1 else 'su2'}gauge".encode() in content and b"su3gauge" not in content
  at = content.index(b"ildg-binary-data") + 200 if module is ildg else len(content) - 5
  path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
  with pytest.raises(FieldFileError, match="format"):
    flowqcd.io.read(path)


def test_other_groups_do_not_pass_for_su3(tmp_path):
  for nc, name in ((1, r"U\(1\)"), (2, r"SU\(2\)")):
    with pytest.raises(ValueError, match=rf"SU\(3\) links .*, not {name} links"):
      nersc.write(tmp_path / "a", np.asarray(links(nc, (2, 2, 2, 2))))
  u = np.asarray(links(2, (2, 2, 2, 2)))
  for module in (ildg, hdf5):
    with pytest.raises(FieldFileError, match="not special unitary"):
      module.write(tmp_path / "a", u * np.exp(0.1j))
  ildg.write(tmp_path / "a", u)
  records = [(name, data.replace(b"su2gauge", b"su3gauge")) for name, data in lime_files.records(tmp_path / "a")]
  lime_files.write(tmp_path / "a", records)
  with pytest.raises(FieldFileError, match="takes 9216 bytes of data, the file has 4096"):
    flowqcd.io.read(tmp_path / "a")


def test_su3_in_hdf5(tmp_path):
  u = haar_in_numpy((2, 3, 4, 5))
  hdf5.write(tmp_path / "a", u)
  back, info = flowqcd.io.read(tmp_path / "a")
  np.testing.assert_array_equal(back, u)
  assert (info.format, info.group, info.checksum) == ("HDF5", "SU(3)", "verified")
  assert info.plaquette == info.plaquette_stated
  # Without the user block it is plain HDF5, of which nothing vouches for the links but the plaquette.
  (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[512:])
  with pytest.warns(UserWarning, match="no digest to verify"):
    assert flowqcd.io.read(tmp_path / "a")[1].checksum == "absent"
  with pytest.raises(FileExistsError):
    hdf5.write(tmp_path / "a", u)


def test_hdf5_that_is_no_field(tmp_path):
  path = tmp_path / "a"
  u = haar_in_numpy((2, 2, 2, 2))
  for columns, attributes, match in (
    ({"u": u}, {"field": "u1gauge"}, r"shape \(4, 3, 3, 2, 2, 2, 2\), which is no u1gauge"),
    ({"u": u[:, :2, :2]}, {"field": "su3gauge"}, "which is no su3gauge"),
    ({"u": u.real}, {"field": "su3gauge"}, "the links are float64"),
    ({"u": u}, {"field": "su3gauge", "plaquette": 0.5}, "the plaquette is .*, the file says 0.5"),
    ({"v": u}, {"field": "su3gauge"}, "no configuration in HDF5"),
  ):
    hdf5.write_columns(path, columns, attributes, overwrite=True)
    with pytest.raises(FieldFileError, match=match):
      flowqcd.io.read(path)
  # Nothing of the size that is claimed is allocated.
  with h5py.File(path, "w") as file:
    file.create_dataset("u", (4, 3, 3, 900, 900, 900, 900), np.complex128)
    file.attrs["field"] = "su3gauge"
  with pytest.raises(FieldFileError, match=r"\d+ bytes in a file of \d+"):
    flowqcd.io.read(path)


def test_an_ensemble_is_no_configuration(tmp_path):
  store = ensembles.Ensemble.create(tmp_path / "e", {})
  store.append({"u": haar_in_numpy((2, 2, 2, 2))[None]})
  with pytest.raises(FieldFileError, match="part-000000.h5: no configuration in HDF5.*flowqcd export"):
    flowqcd.io.read(tmp_path / "e" / "part-000000.h5")
