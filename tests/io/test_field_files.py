import pathlib
import random
import re
import shutil
import warnings

import numpy as np
import pytest
from fields import DATA, links

from flowqcd.io import ildg, nersc
from flowqcd.io.files import FieldFileError

FILES = {
  "rand_2222.nersc": nersc,
  "rand_2324.nersc": nersc,
  "rand_2222.ildg": ildg,
}
ODD = (2, 3, 4, 5)


@pytest.fixture
def u():
  return np.asarray(links(3, ODD))


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
  u = np.asarray(links(3, (4, 2, 2, 2)))  # It knows spatial cubes only.
  path = tmp_path / "a"
  write(path, u)
  kind = reader.ILDGReader if path.read_bytes()[:4] == b"\x45\x67\x89\xab" else reader.NERSCReader
  gauge = kind(Ns=2, Nt=4, nproc=1).readConf(str(path))
  for t, x, y, z in np.ndindex(4, 2, 2, 2):
    for mu, ours in enumerate((1, 2, 3, 0)):
      other = np.asarray(gauge.getLink(x, y, z, t, mu))
      np.testing.assert_allclose(other, u[ours, :, :, t, x, y, z], atol=2e-7)


def test_headers_with_few_digits_are_believed_to_those_digits(tmp_path, u):
  nersc.write(tmp_path / "a", u)
  text = (tmp_path / "a").read_bytes()
  value = float(re.search(rb"PLAQUETTE = (\S+)", text)[1])
  short = re.sub(rb"PLAQUETTE = \S+", f"PLAQUETTE = {value:.5e}".encode(), text)
  (tmp_path / "b").write_bytes(short)
  nersc.read(tmp_path / "b")
  wrong = re.sub(rb"PLAQUETTE = \S+", f"PLAQUETTE = {value + 0.001:.5e}".encode(), text)
  (tmp_path / "c").write_bytes(wrong)
  with pytest.raises(FieldFileError, match="plaquette"):
    nersc.read(tmp_path / "c")


@pytest.mark.parametrize("key", ["CHECKSUM", "PLAQUETTE", "LINK_TRACE"])
def test_what_a_nersc_header_does_not_state_is_a_warning(tmp_path, u, key):
  nersc.write(tmp_path / "a", u)
  text = re.sub(rf"{key} = .*\n".encode(), b"", (tmp_path / "a").read_bytes(), count=1)
  (tmp_path / "b").write_bytes(text)
  with pytest.warns(UserWarning, match="states no"):
    back, _ = nersc.read(tmp_path / "b")
  np.testing.assert_array_equal(back, u)


def test_a_missing_ildg_checksum_is_a_warning(tmp_path, u):
  from flowqcd.io import lime

  ildg.write(tmp_path / "a", u)
  records = [r for r in lime.read(tmp_path / "a") if r.type != "scidac-checksum"]
  with open(tmp_path / "b", "wb") as handle:
    lime.write(handle, records)
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


def _mutate(data: bytearray, rng: random.Random, header: int) -> None:
  """One random damage: to a header byte more often than not, since that is where parsers fail."""
  kind = rng.choice(["flip", "byte", "digit", "delete", "insert", "swap", "zero", "word"])
  end = header if rng.random() < 0.7 else len(data)
  i = rng.randrange(end)
  if kind == "flip":
    data[i] ^= 1 << rng.randrange(8)
  elif kind == "byte":
    data[i] = rng.randrange(256)
  elif kind == "digit":
    digits = [j for j in range(header) if chr(data[j]).isdigit()]
    data[rng.choice(digits)] = ord(rng.choice("0123456789"))
  elif kind == "delete":
    del data[i : i + rng.randrange(1, 40)]
  elif kind == "insert":
    data[i:i] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
  elif kind == "swap":
    j = rng.randrange(end)
    n = rng.randrange(1, 30)
    data[i : i + n], data[j : j + n] = data[j : j + n], data[i : i + n]
  elif kind == "zero":
    data[i : i + 16] = bytes(len(data[i : i + 16]))
  else:
    data[i : i + 8] = rng.choice([b"\xff" * 8, b"nan     ", b"1e999   ", b"-1\n=    ", b"<lx></lx"])


@pytest.mark.parametrize("name", list(FILES))
def test_a_thousand_mutations_of_each_file(tmp_path, name):
  """Whatever is damaged: a clear error, or the right field; never a crash, a hang or a wrong field."""
  original, rng = DATA / "numpy" / name, random.Random(2208)
  good = original.read_bytes()
  header = good.find(b"END_HEADER") + 11 if name.endswith("nersc") else 900
  path = tmp_path / name
  refused = 0
  for _ in range(1000):
    data = bytearray(good)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
      _mutate(data, rng, min(header, len(data)))
    path.write_bytes(bytes(data))
    refused += not _must_fail_or_agree(FILES[name], path, original)
  assert refused > 500


def test_huge_claims_do_not_allocate(tmp_path):
  path = tmp_path / "a.nersc"
  text = (DATA / "numpy" / "rand_2222.nersc").read_bytes()
  path.write_bytes(re.sub(rb"DIMENSION_(\d) = 2", rb"DIMENSION_\1 = 99999", text))
  with pytest.raises(FieldFileError, match="takes"):
    nersc.read(path)
  path = tmp_path / "a.ildg"
  data = bytearray((DATA / "numpy" / "rand_2222.ildg").read_bytes())
  data[8:16] = (2**62).to_bytes(8, "big")
  path.write_bytes(data)
  with pytest.raises(FieldFileError, match="claims"):
    ildg.read(path)


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
  from flowqcd.io import lime

  def fail(handle, records):
    handle.write(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(lime, "write", fail)
  with pytest.raises(OSError, match="disk full"):
    ildg.write(tmp_path / "a", u)
  assert not list(pathlib.Path(tmp_path).iterdir())
  shutil.rmtree(tmp_path)
