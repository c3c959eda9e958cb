import pathlib
import re
import shutil
import warnings

import lime_files
import numpy as np
import pytest
from fields import DATA, fixtures, haar_in_numpy

from flowqcd.io import fields, ildg, lime, nersc
from flowqcd.io.files import FieldFileError

FILES = {
  "rand_2222.nersc": nersc,
  "rand_2324.nersc": nersc,
  "rand_2222.ildg": ildg,
}
ODD = (2, 3, 4, 5)


@pytest.fixture
def u():
  return haar_in_numpy(ODD)


@pytest.mark.parametrize("name", ["near_4444", "rand_2222"])
def test_both_formats_hold_the_same_field(name):
  a, first = ildg.read(DATA / "numpy" / f"{name}.ildg")
  b, second = nersc.read(DATA / "numpy" / f"{name}.nersc")
  np.testing.assert_array_equal(a, b)
  assert a.dtype == np.complex128 and first.extents == second.extents == a.shape[3:]
  assert first.plaquette == second.plaquette


def test_tmlqcd_file_states_its_checksum():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    _, info = ildg.read(DATA / "tmlqcd" / "nf2_b1.0_k0.1_apbc.0000.lime")
  assert info.checksum is not None and info.precision == 64 and info.extents == (4, 4, 4, 4)


@pytest.mark.parametrize("precision, error", [(64, 0), (32, 1e-7)])
def test_ildg_round_trip(tmp_path, u, precision, error):
  ildg.write(tmp_path / "a.ildg", u, precision)
  back, info = ildg.read(tmp_path / "a.ildg")
  np.testing.assert_allclose(back, u, atol=error)
  assert info.extents == ODD and info.precision == precision


@pytest.mark.parametrize("kind", ["IEEE32BIG", "IEEE32LITTLE", "IEEE64BIG", "IEEE64LITTLE"])
@pytest.mark.parametrize("rows", [2, 3])
def test_nersc_round_trip(tmp_path, u, kind, rows):
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    nersc.write(tmp_path / "a", u, kind, rows)
    back, info = nersc.read(tmp_path / "a")
  np.testing.assert_allclose(back, u, atol=1e-14 if "64" in kind else 2e-7)
  assert info.extents == ODD and info.rows == rows


@pytest.mark.parametrize(
  "write",
  [
    lambda path, u: ildg.write(path, u),
    lambda path, u: nersc.write(path, u, "IEEE64BIG", 3),
    lambda path, u: nersc.write(path, u, "IEEE32BIG", 2),
  ],
)
def test_another_code_reads_what_is_written(tmp_path, write):
  handling = np.geterr()
  reader = pytest.importorskip("latqcdtools.interfaces.confReader")
  np.seterr(**handling)  # Its import makes every underflow in the process an error.
  u = haar_in_numpy((4, 2, 2, 2))  # It knows spatial cubes only.
  path = tmp_path / "a"
  write(path, u)
  kind = reader.ILDGReader if path.read_bytes()[:4] == b"\x45\x67\x89\xab" else reader.NERSCReader
  gauge = kind(Ns=2, Nt=4, nproc=1).readConf(str(path))
  for t, x, y, z in np.ndindex(4, 2, 2, 2):
    for mu, ours in enumerate((1, 2, 3, 0)):
      other = np.asarray(gauge.getLink(x, y, z, t, mu))
      np.testing.assert_allclose(other, u[ours, :, :, t, x, y, z], atol=2e-7)


def _edit(path, pattern, replacement, count=1):
  """Rewrite a file with one pattern replaced."""
  text, n = re.subn(pattern, replacement, path.read_bytes(), count=count)
  assert n
  path.write_bytes(text)


def _shift(text, by, digits):
  """A number in text plus something, with so many digits."""
  return f"{float(text) + by:.{digits}e}".encode()


def test_headers_with_few_digits_are_believed_to_those_digits(tmp_path, u):
  path = tmp_path / "a"
  nersc.write(path, u)
  _edit(path, rb"(?<=PLAQUETTE = )\S+", lambda m: _shift(m[0], 0, 5))
  with lime_files.silence():
    nersc.read(path)
  # The checksum is blind to the order of numbers, so the plaquette must agree.
  _edit(path, rb"(?<=PLAQUETTE = )\S+", lambda m: _shift(m[0], 0.001, 5))
  with pytest.raises(FieldFileError, match=r"plaquette is .* \(check_plaquette=False makes that a warning\)"):
    nersc.read(path)
  with pytest.warns(UserWarning, match="plaquette is .*, the file says"):
    np.testing.assert_array_equal(nersc.read(path, check_plaquette=False)[0], u)


def test_numbers_in_another_order_are_noticed(tmp_path, u):
  path = tmp_path / "a"
  nersc.write(path, u)
  data = bytearray(path.read_bytes())
  data[-576:], data[-1152:-576] = data[-1152:-576], data[-576:]
  path.write_bytes(data)
  with pytest.raises(FieldFileError, match="plaquette"):
    nersc.read(path)


def test_another_link_trace_is_a_warning_beside_checksum_and_plaquette(tmp_path, u):
  path = tmp_path / "a"
  nersc.write(path, u)
  _edit(path, rb"(?<=LINK_TRACE = )\S+", lambda m: _shift(m[0], 0.001, 5))
  with pytest.warns(UserWarning, match="the link trace is .*, the file says"):
    np.testing.assert_array_equal(nersc.read(path)[0], u)
  _edit(path, rb"PLAQUETTE = .*\n", b"")
  with pytest.raises(FieldFileError, match="link trace"):
    nersc.read(path)


@pytest.mark.parametrize("precision, drift", [(64, 0), (64, 3e-7), (64, 1e-5), (32, 3e-7), (32, 1e-5)])
@pytest.mark.parametrize("form", ["ildg", "nersc", "two rows"])
def test_what_is_written_is_read(tmp_path, u, form, precision, drift):
  """Links as far from the group as single precision leaves them, and as far as is written at all."""
  u = _drifted(u, drift)
  path, noisy = tmp_path / "a", precision == 64 and drift > 0
  if form == "ildg":
    ildg.write(path, u, precision)
  else:
    nersc.write(path, u, f"IEEE{precision}BIG", 2 if form == "two rows" else 3)
  read = ildg.read if form == "ildg" else nersc.read
  stored = fields.complete_rows(u) if form == "two rows" else u
  with (
    pytest.warns(UserWarning, match=r"links at 64 bits are special unitary to \d\.\de-0[567] only")
    if noisy
    else lime_files.silence()
  ):
    back, info = read(path)
  np.testing.assert_allclose(back, stored, atol=0 if precision == 64 else 1e-7)
  with lime_files.silence():
    projected, same = read(path, reunitarise=True)
  assert fields.drift(projected).worst < 1e-13 and same == info
  np.testing.assert_allclose(projected, back, atol=2 * drift + 2e-7)


def _drifted(u, drift):
  """Links off the group by `drift`, in norm and phase of the rows."""
  rng = np.random.default_rng(1)
  return u * (1 + drift * rng.uniform(-0.5, 0.5, (4, 3, 1, *u.shape[3:])))


@pytest.mark.parametrize("kind", ["IEEE32BIG", "IEEE64BIG"])
def test_the_worst_that_is_written_by_two_rows_is_read(tmp_path, kind):
  """The third row, rebuilt, is off by twice as much as the others, and the plaquette is of what is stored."""
  u, _ = nersc.read(DATA / "numpy" / "near_4444.nersc")
  edge = u * (1 + 0.99e-5 * np.array([1, 1, -1]).reshape(3, *[1] * 5))
  nersc.write(tmp_path / "a", edge, kind, rows=2)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    _, info = nersc.read(tmp_path / "a")
  assert 3.9e-5 < info.violation < 4.1e-5


def test_links_of_single_precision_are_read_from_64_bits(tmp_path, u):
  single = u.astype(np.complex64)
  ildg.write(tmp_path / "a", single)
  with pytest.warns(UserWarning, match="special unitary to") as said:
    np.testing.assert_array_equal(ildg.read(tmp_path / "a")[0], single)
  assert said[0].filename == __file__


@pytest.mark.parametrize("form", ["nersc", "ildg without checksum"])
def test_a_few_links_off_are_damage_not_rounding(tmp_path, u, form, monkeypatch):
  """Words in another order leave NERSC's checksum, and the last digits of few links hardly change the plaquette."""
  path = tmp_path / "a"
  damaged = u.copy()
  damaged[1, 0, 0, 0, 0, 0, 0] += 3e-7
  if form == "nersc":
    nersc.write(path, damaged)
  else:
    ildg.write(path, damaged)
    with pytest.warns(UserWarning, match="special unitary to"):
      ildg.read(path)
    lime_files.write(path, [r for r in lime_files.records(path) if r[0] != "scidac-checksum"])
  with pytest.raises(FieldFileError, match=r"1 of 480 links off the group by up to \d\.\de-07: damage, not rounding"):
    (nersc if form == "nersc" else ildg).read(path)


def test_drift_beyond_single_precision_is_an_error(tmp_path, u, monkeypatch):
  monkeypatch.setattr(fields, "_WRITABLE", 1)
  for module in (ildg, nersc):
    module.write(tmp_path / module.__name__, _drifted(u, 3e-4))
    for reunitarise in (False, True):
      with pytest.raises(FieldFileError, match=r"not special unitary \(off by \d\.\de-04, allowed 5e-05\)"):
        module.read(tmp_path / module.__name__, reunitarise=reunitarise)


@pytest.mark.parametrize("name", ["rand_2222", "rand_2324", "near_4444"])
def test_plaquette_is_that_of_an_independent_code(name):
  entry = next(e for e in fixtures() if e.get("file") == f"{name}.nersc")
  assert nersc.read(DATA / "numpy" / f"{name}.nersc")[1].plaquette == pytest.approx(entry["plaquette"], abs=1e-14)


def test_drift_is_the_largest_of_unitarity_and_determinant(u):
  assert fields.drift(u).worst < 1e-14
  for off in (_drifted(u, 1e-3), u * np.exp(1e-3j)):
    m = np.moveaxis(off, (1, 2), (-2, -1))
    gram = np.abs(m @ m.conj().swapaxes(-1, -2) - np.eye(3)).max()
    expected = max(gram, np.abs(np.linalg.det(m) - 1).max())
    assert fields.drift(off) == (pytest.approx(expected, rel=1e-9), 480, 480)


@pytest.mark.parametrize("key", ["CHECKSUM", "PLAQUETTE", "LINK_TRACE"])
def test_what_a_nersc_header_does_not_state_is_a_warning(tmp_path, u, key):
  nersc.write(tmp_path / "a", u)
  text = re.sub(rf"{key} = .*\n".encode(), b"", (tmp_path / "a").read_bytes(), count=1)
  (tmp_path / "b").write_bytes(text)
  with pytest.warns(UserWarning, match="states no"):
    back, _ = nersc.read(tmp_path / "b")
  np.testing.assert_array_equal(back, u)


def test_a_missing_ildg_checksum_is_a_warning(tmp_path, u):
  ildg.write(tmp_path / "a", u)
  lime_files.write(tmp_path / "b", [r for r in lime_files.records(tmp_path / "a") if r[0] != "scidac-checksum"])
  with pytest.warns(UserWarning, match="no SciDAC checksum"):
    back, info = ildg.read(tmp_path / "b")
  assert info.checksum is None
  np.testing.assert_array_equal(back, u)


def test_non_unitary_links_are_refused_both_ways(tmp_path, u):
  broken = u.copy()
  broken[0, :, :, 0, 0, 0, 0] *= 1.01
  for module in (ildg, nersc):
    with pytest.raises(FieldFileError, match="unitary"):
      module.write(tmp_path / "a", broken)
  assert not list(tmp_path.iterdir())
  wrong_det = u.copy()
  wrong_det[0, 0] *= -1
  with pytest.raises(FieldFileError, match="unitary"):
    nersc.write(tmp_path / "a", wrong_det)


def test_nothing_is_overwritten_silently(tmp_path, u):
  for module in (ildg, nersc):
    path = tmp_path / module.__name__
    module.write(path, u)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
      module.write(path, u[:, :, :, ::-1])
    assert path.read_bytes() == before
    module.write(path, u[:, :, :, ::-1], overwrite=True)
    np.testing.assert_array_equal(module.read(path)[0], u[:, :, :, ::-1])


def test_wrong_shapes_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"\[4, 3, 3, T, X, Y, Z\]"):
    nersc.write(tmp_path / "a", np.zeros((2, 2, 2, 4, 4)))
  with pytest.raises(ValueError, match="floating_point"):
    nersc.write(tmp_path / "a", np.zeros((4, 3, 3, 2, 2, 2, 2)), "IEEE16")


@pytest.mark.parametrize("name", list(FILES))
def test_truncation_at_any_place(tmp_path, name):
  text = (DATA / "numpy" / name).read_bytes()
  path = tmp_path / name
  for size in [*range(0, len(text), 499), len(text) - 1]:
    path.write_bytes(text[:size])
    # A cut in the padding of the last record loses nothing.
    _must_fail_or_agree(FILES[name], path, DATA / "numpy" / name)


def _must_fail_or_agree(module, path, original):
  """True if the file was read, and then rightly; a clear error otherwise; nothing else."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    try:
      u, _ = module.read(path)
    except FieldFileError as error:
      assert str(path) in str(error)
      return False
    expected = module.read(original)[0]
  np.testing.assert_array_equal(u, expected)
  return True


@pytest.mark.parametrize("module", [ildg, nersc])
def test_other_files_are_named(tmp_path, module):
  path = tmp_path / "a"
  for content in (b"", b"\0" * 100, b"BEGIN_HEADER\n", b"\x45\x67\x89\xab", bytes(range(256)) * 9):
    path.write_bytes(content)
    with pytest.raises(FieldFileError, match=re.escape(str(path))):
      module.read(path)
  with pytest.raises(FileNotFoundError):
    module.read(tmp_path / "none")
  with pytest.raises(OSError):
    module.read(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path, u, monkeypatch):
  def fail(handle, records):
    handle.write(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(lime, "write", fail)
  with pytest.raises(OSError, match="disk full"):
    ildg.write(tmp_path / "a", u)
  assert not list(pathlib.Path(tmp_path).iterdir())
  shutil.rmtree(tmp_path)
