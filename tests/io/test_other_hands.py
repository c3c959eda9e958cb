"""Files that other programs wrote, or that were changed on the way: what is a courtesy, and what decides."""

import gzip
import re

import lime_files
import numpy as np
import pytest
from fields import DATA, haar_in_numpy

from flowqcd.io import ildg, nersc
from flowqcd.io.files import FieldFileError

ODD = (2, 3, 4, 5)


@pytest.fixture
def u():
  return haar_in_numpy(ODD)


_HEADERS = {
  "CRLF": lambda head: head.replace(b"\n", b"\r\n"),
  "blank after END_HEADER": lambda head: head[:-1] + b" \n",
  "comments": lambda head: head.replace(b"\n", b"\n# a = b\n  # c\n\n", 1),
  "lower case": lambda head: head.lower(),
  "no blanks": lambda head: head.replace(b" = ", b"="),
}


@pytest.mark.parametrize("form", list(_HEADERS))
def test_headers_of_nersc_in_other_hands(tmp_path, u, form):
  path = tmp_path / "a"
  nersc.write(path, u)
  head, end, data = path.read_bytes().partition(b"END_HEADER\n")
  path.write_bytes(_HEADERS[form](head + end) + data)
  with lime_files.silence():
    back, info = nersc.read(path)
  np.testing.assert_array_equal(back, u)
  assert info.header["DIMENSION_1"] == "3" and "# a" not in info.header


@pytest.mark.parametrize("module", [ildg, nersc])
@pytest.mark.parametrize("padding", [b"\n", b"\r\n", bytes(5), bytes(5000)])
def test_padding_after_the_data(tmp_path, u, module, padding):
  path = tmp_path / "a"
  module.write(path, u)
  with open(path, "ab") as handle:
    handle.write(padding)
  with lime_files.silence():
    np.testing.assert_array_equal(module.read(path)[0], u)
  with open(path, "ab") as handle:
    handle.write(b"more" * 40)
  with pytest.raises(FieldFileError, match="more than padding|truncated|no LIME record"):
    module.read(path)


@pytest.mark.parametrize("module", [ildg, nersc])
def test_gzip(tmp_path, u, module):
  path = tmp_path / "a"
  module.write(path, u)
  content = path.read_bytes()
  path.write_bytes(gzip.compress(content))
  with lime_files.silence():
    back, info = module.read(path)
  np.testing.assert_array_equal(back, u)
  path.write_bytes(content)
  assert module.read(path)[1] == info


def _with_plaquette(path, text):
  """A file by tmLQCD with another record xlf-info: rewritten as the messages that it has."""
  records = [("xlf-info", text) if name == "xlf-info" else (name, data) for name, data in lime_files.records(TMLQCD)]
  lime_files.write(path, records[:1], records[1:])


TMLQCD = DATA / "tmlqcd" / "nf2_b1.0_k0.1_apbc.0000.lime"


def test_the_checksum_decides_over_the_plaquette_of_tmlqcd(tmp_path):
  u, info = ildg.read(TMLQCD)
  path = tmp_path / "a"
  _with_plaquette(path, b"plaquette = 5.6279e-02, beta = 1.0\n")
  with lime_files.silence():
    assert ildg.read(path)[1].plaquette == info.plaquette
  _with_plaquette(path, b"plaquette = 0.056379029829\n beta = 1.0")
  with pytest.warns(
    UserWarning, match=r"a: the plaquette is 0.056279029829, the file says 0.056379029829; the checksum"
  ):
    np.testing.assert_array_equal(ildg.read(path)[0], u)
  _with_plaquette(path, b"plaquette = unknown\n")
  with pytest.warns(UserWarning, match="'unknown' is no number"):
    ildg.read(path)
  # Nothing else vouches for the data then.
  _with_plaquette(path, b"plaquette = 0.056379029829")
  lime_files.write(path, [r for r in lime_files.records(path) if r[0] != "scidac-checksum"])
  with pytest.raises(FieldFileError, match="the file says 0.056379029829, and there is no checksum"):
    ildg.read(path)


def test_a_second_message_with_a_checksum_of_its_own(tmp_path, u):
  ildg.write(tmp_path / "a", u)
  field = lime_files.records(tmp_path / "a")
  other = [("scidac-binary-data", b"abc"), ("scidac-checksum", b"<x><suma>1</suma><sumb>2</sumb></x>")]
  for messages in ((field, other), (other, field), (field[:-1], field[-1:], other)):
    lime_files.write(tmp_path / "b", *messages)
    with lime_files.silence():
      back, info = ildg.read(tmp_path / "b")
    np.testing.assert_array_equal(back, u)
    assert info.checksum == ildg.read(tmp_path / "a")[1].checksum
  lime_files.write(tmp_path / "b", [*field, field[-1]])
  with pytest.raises(FieldFileError, match="2 records 'scidac-checksum'"):
    ildg.read(tmp_path / "b")
  lime_files.write(tmp_path / "b", field, field)
  with pytest.raises(FieldFileError, match="2 records 'ildg-binary-data'"):
    ildg.read(tmp_path / "b")


def test_a_wrong_checksum_of_the_own_message_is_not_made_good_by_another(tmp_path, u):
  ildg.write(tmp_path / "a", u)
  field = lime_files.records(tmp_path / "a")
  wrong = ("scidac-checksum", b"<x><suma>1</suma><sumb>2</sumb></x>")
  lime_files.write(tmp_path / "b", [*field[:-1], wrong], [field[-1]])
  with pytest.raises(FieldFileError, match="stated 1 2"):
    ildg.read(tmp_path / "b")


@pytest.mark.parametrize(
  "change",
  [
    lambda xml: re.sub(rb"<(/?)(?=\w)", rb"<\1ns:", xml).replace(b"xmlns=", b"xmlns:ns="),
    lambda xml: xml.replace(b"<lx>", b'<lx type="int">'),
    lambda xml: xml.replace(b"<lx>", b"<!-- <lx>7</lx> --> <lx>\n "),
    lambda xml: xml + bytes(7),
  ],
)
def test_xml_in_other_hands(tmp_path, u, change):
  ildg.write(tmp_path / "a", u)
  lime_files.write(
    tmp_path / "b", [(n, change(d) if d.startswith(b"<?xml") else d) for n, d in lime_files.records(tmp_path / "a")]
  )
  with lime_files.silence():
    np.testing.assert_array_equal(ildg.read(tmp_path / "b")[0], u)


def test_extents_that_contradict_each_other(tmp_path, u):
  ildg.write(tmp_path / "a", u)
  private = b"<scidacFile><dims>4 3 5 2</dims><volfmt>0</volfmt></scidacFile>"
  lime_files.write(tmp_path / "b", [("scidac-private-file-xml", private)], lime_files.records(tmp_path / "a"))
  with pytest.raises(
    FieldFileError, match=r"are \(2, 3, 4, 5\), the record 'scidac-private-file-xml' says \(2, 4, 3, 5\)"
  ):
    ildg.read(tmp_path / "b")


def test_a_file_cut_between_records(tmp_path):
  """No cut leaves a file that reads as one without checksum."""
  content = TMLQCD.read_bytes()
  starts = [m.start() for m in re.finditer(re.escape(b"\x45\x67\x89\xab\0\1"), content)]
  assert len(starts) == 4
  for stop in starts[2:]:
    (tmp_path / "a").write_bytes(content[:stop])
    with pytest.raises(FieldFileError, match="'ildg-[a-z-]*' has no flag message-end, so records .* cut off"):
      ildg.read(tmp_path / "a")
  # Zeros that a file system left in place of the tail make no difference.
  (tmp_path / "a").write_bytes(content[: starts[3]] + bytes(len(content) - starts[3]))
  with pytest.raises(FieldFileError, match="no flag message-end"):
    ildg.read(tmp_path / "a")
