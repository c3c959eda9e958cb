"""Files that other codes wrote, with the values that those codes print (tests/data/other-codes/README.md)."""

import re
import warnings

import lime_files
import numpy as np
import pytest
from fields import DATA, haar_in_numpy, openqcd_bytes

from flowqcd.io import fields, ildg, milc, nersc, openqcd
from flowqcd.io.files import FieldFileError, NoExtentsError, OtherExtentsError

OTHERS = DATA / "other-codes"


@pytest.fixture(autouse=True)
def _no_warnings():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    yield


def test_milc_version_5():
  u, info = milc.read(OTHERS / "milc_v5_l4444")
  # MILC prints three times the spacelike and timelike plaquettes.
  assert info.plaquette == pytest.approx((1.7946751560761729 + 1.7744257976067317) / 6, abs=1e-9)
  assert info.link_trace == pytest.approx(0.64675873741896339, abs=1e-9)
  assert info.date == "Thu Feb 12 13:40:21 1998" and info.extents == (4, 4, 4, 4) == u.shape[3:]
  spacelike = np.mean([np.mean(_traces(u, mu, nu)) for mu, nu in ((1, 2), (1, 3), (2, 3))])
  assert 3 * spacelike == pytest.approx(1.7946751560761729, abs=1e-8)


def _traces(u, mu, nu):
  m = np.moveaxis(u, (1, 2), (-2, -1))
  loop = m[mu] @ np.roll(m[nu], -1, axis=mu) @ np.moveaxis((m[nu] @ np.roll(m[mu], -1, axis=nu)).conj(), -1, -2)
  return np.trace(loop, axis1=-2, axis2=-1).real / 3


def test_milc_big_endian(tmp_path):
  name = OTHERS / "milc_v5_l4444"
  data = name.read_bytes()
  numbers = lambda part: np.frombuffer(part, "<u4").astype(">u4").tobytes()
  (tmp_path / "a").write_bytes(numbers(data[:20]) + data[20:84] + numbers(data[84:]))
  np.testing.assert_array_equal(milc.read(tmp_path / "a")[0], milc.read(name)[0])


def test_scidac_file_without_ildg_records():
  u, info = ildg.read(OTHERS / "milc_l4444.scidac")
  np.testing.assert_array_equal(u, milc.read(OTHERS / "milc_v5_l4444")[0])
  assert info.checksum == (0x37AFFB9C, 0x2FC07BBF) and info.precision == 32
  with pytest.raises(FieldFileError, match=r"extents .* are \(4, 4, 4, 4\), the caller says \(8, 4, 4, 2\)"):
    ildg.read(OTHERS / "milc_l4444.scidac", extents=(8, 4, 4, 2))


def test_double_promoted_from_single_is_read_with_a_warning():
  with pytest.warns(
    UserWarning, match=r"qdp_double_from_single.lime: links at 64 bits are special unitary to 4\.\de-07"
  ):
    u, info = ildg.read(OTHERS / "qdp_double_from_single.lime")
  # The values are of links in single precision; with the third rows rebuilt the plaquette is lower by 9e-11.
  assert info.plaquette == pytest.approx(0.0382422893, abs=1e-9)
  assert fields.link_trace(u) == pytest.approx(0.4630322094, abs=1e-9)
  assert info.violation == pytest.approx(fields.drift(u).worst, rel=1e-12)
  projected, same = ildg.read(OTHERS / "qdp_double_from_single.lime", reunitarise=True)
  assert fields.drift(projected).worst < 1e-14 and same == info
  np.testing.assert_allclose(projected, u, atol=5e-7)


def test_bare_record_needs_extents():
  fitting = r"extents T,X,Y,Z; .* extents=4,4,4,4 at 64 bits or extents=8,4,4,4 at 32 bits"
  with pytest.raises(NoExtentsError, match=fitting):
    ildg.read(OTHERS / "julia_bare_record.ildg")
  for extents in ((4, 4, 4, 5), (4, 4, 16), (-4, -4, 4, 4)):
    with pytest.raises(OtherExtentsError, match=rf"no field on a lattice {re.escape(str(extents))}"):
      ildg.read(OTHERS / "julia_bare_record.ildg", extents=extents)
  with pytest.warns(UserWarning, match="no SciDAC checksum"):
    _, info = ildg.read(OTHERS / "julia_bare_record.ildg", extents=(4, 4, 4, 4))
  assert info.plaquette == pytest.approx(0.614790430840494, abs=1e-14)


def test_a_bare_record_of_no_lattice_is_damaged(tmp_path):
  ((name, data),) = lime_files.records(OTHERS / "julia_bare_record.ildg")
  for content in (data[:-8], b""):
    lime_files.write(tmp_path / "a", [(name, content)])
    for extents in (None, (4, 4, 4, 4)):
      with pytest.raises(FieldFileError, match=f"{len(content)} bytes of data are no field of SU") as found:
        ildg.read(tmp_path / "a", extents)
      assert found.type is FieldFileError


@pytest.mark.parametrize("lattice", [(4, 2, 2, 2), (2, 2, 4, 6)])
def test_openqcd(tmp_path, lattice):
  u, path = haar_in_numpy(lattice), tmp_path / "a"
  content = openqcd_bytes(u)
  path.write_bytes(content)
  back, info = openqcd.read(path)
  np.testing.assert_array_equal(back, u)
  assert info.extents == lattice and info.plaquette == pytest.approx(fields.plaquette(u), abs=1e-14)
  path.write_bytes(content[:16] + np.array(0.75, "<f8").tobytes() + content[24:])
  with pytest.raises(FieldFileError, match=r"the plaquette is .*, the file says 0\.25"):
    openqcd.read(path)
  path.write_bytes(content[:-1])
  with pytest.raises(FieldFileError, match=r"claims \d+ bytes, \d+ are left; truncated"):
    openqcd.read(path)


def _hirep(nc):
  return np.array([nc, 2, 2, 2, 2], ">i4").tobytes() + np.array(0.5, ">f8").tobytes() + bytes(4 * 16 * nc * nc * 16)


@pytest.mark.parametrize(
  "name, content",
  [
    ("MILC version 5 format, which flowqcd.io.milc reads", lambda: (OTHERS / "milc_v5_l4444").read_bytes()),
    ("openQCD format, which flowqcd.io.openqcd reads", lambda: openqcd_bytes(haar_in_numpy((2, 2, 2, 2)))),
    ("HiRep format, which cannot be read", lambda: _hirep(2)),
    ("HiRep format, which cannot be read", lambda: _hirep(3)),
    ("HDF5 format", lambda: b"\x89HDF\r\n\x1a\n" + bytes(100)),
    ("LIME format, which flowqcd.io.ildg reads", lambda: (OTHERS / "julia_bare_record.ildg").read_bytes()),
    ("NERSC format, which flowqcd.io.nersc reads", lambda: (DATA / "numpy" / "rand_2222.nersc").read_bytes()),
  ],
)
def test_a_reader_names_the_format_of_another(tmp_path, name, content):
  path = tmp_path / "a"
  path.write_bytes(content())
  for module in (ildg, nersc, milc, openqcd):
    if f"{module.__name__} reads" not in name:
      with pytest.raises(FieldFileError, match=name):
        module.read(path)
