"""A stranger's file is believed in nothing that costs memory or time, and no entity of its XML is expanded."""

import contextlib
import gzip
import re
import time
import tracemalloc

import numpy as np
import pytest
from fields import DATA

from flowqcd.io import ildg, lime, milc, nersc, openqcd, source
from flowqcd.io.files import FieldFileError

NERSC = (DATA / "numpy" / "rand_2222.nersc").read_bytes()
ILDG = (DATA / "numpy" / "rand_2222.ildg").read_bytes()
XML = ILDG[ILDG.index(b"<?xml") : ILDG.index(b"</ildgFormat>") + 13]
MILC = (DATA / "other-codes" / "milc_v5_l4444").read_bytes()


def _refuse(read, path, content, match, most=4 << 20):
  """The error must come before anything large is allocated."""
  path.write_bytes(content)
  tracemalloc.start()
  try:
    with pytest.raises(FieldFileError, match=match) as error:
      read(path)
    assert tracemalloc.get_traced_memory()[1] < most
  finally:
    tracemalloc.stop()
  assert str(path) in str(error.value)


def _with_format(xml):
  """The small ILDG file with another description."""
  old = len(XML)
  head = ILDG[:8] + len(xml).to_bytes(8, "big") + ILDG[16:144]
  return head + xml + bytes(-len(xml) % 8) + ILDG[144 + old + -old % 8 :]


def _lime_claim(n):
  data = bytearray(ILDG)
  data[8:16] = n.to_bytes(8, "big")
  return bytes(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
  "read, content, claim",
  [
    (nersc.read, re.sub(rb"DIMENSION_(\d) = 2", rb"DIMENSION_\1 = 16384", NERSC), (1 << 56) * 576),
    (ildg.read, _lime_claim(1 << 60), 1 << 60),
    (ildg.read, _with_format(XML.replace(b">2</l", b">99999</l")), None),
    (milc.read, MILC[:4] + b"\0\0\1\0" * 4 + MILC[20:], 256**4 * 256**4 * 288),
    (openqcd.read, b"\0\0\1\0" * 4 + bytes(100), 256**4 * 256**4 * 576),
  ],
)
def test_claims_allocate_nothing(tmp_path, pack, read, content, claim):
  content = pack(content)
  said = {bytes: r"\d+ are left", gzip.compress: r"at most \d+ can be unpacked"}[pack]
  match = f"claims {claim} bytes, {said}" if claim else r"takes \d+ bytes of data, the file has 9216"
  _refuse(read, tmp_path / "a", content, match)


def test_a_bomb_of_padding_is_not_unpacked_whole(tmp_path):
  for read, content in ((nersc.read, NERSC), (ildg.read, ILDG)):
    bomb = gzip.compress(content + bytes(1 << 24), 9)
    _refuse(read, tmp_path / "a", bomb, "bytes of padding follow")


def test_a_bomb_within_a_text_record(tmp_path):
  path = tmp_path / "b"
  with open(path, "wb") as handle:
    lime.write(handle, [("ildg-format", b" " * (1 << 24)), ("ildg-binary-data", bytes(9216))])
  _refuse(ildg.read, tmp_path / "a", gzip.compress(path.read_bytes()), "at most 65536 make sense")


def test_a_flood_of_records(tmp_path):
  path = tmp_path / "b"
  with open(path, "wb") as handle:
    lime.write(handle, [("a", b"")] * 2000)
  _refuse(ildg.read, tmp_path / "a", path.read_bytes(), "over 1000 LIME records")


_LAUGHS = b'<!DOCTYPE a [<!ENTITY l0 "2">%s]>' % b"".join(
  b'<!ENTITY l%d "%s">' % (i, b"&l%d;" % (i - 1) * 10) for i in range(1, 10)
)


@pytest.mark.parametrize(
  "declaration, number, word",
  [
    (_LAUGHS, b"&l9;", "DOCTYPE"),
    (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>', b"&x;", "DOCTYPE"),
    (b'<!doctype a SYSTEM "http://example.org/a.dtd">', b"2", "DOCTYPE"),
    (b'<!ENTITY x "2">', b"2", "ENTITY"),
  ],
)
def test_entities_are_refused(tmp_path, declaration, number, word):
  xml = XML.replace(b"?><", b"?>" + declaration + b"<", 1).replace(b"<lx>2<", b"<lx>" + number + b"<")
  _refuse(ildg.read, tmp_path / "a", _with_format(xml), f"'ildg-format' has a {word} declaration, which is refused")


@pytest.mark.parametrize("piece", [b"<!--", b"<lx>", b"<a:lx ", b"< ", b"<!", b"<lx " + b" " * 1000])
def test_a_description_that_is_all_beginnings_takes_no_time(tmp_path, piece):
  (tmp_path / "a").write_bytes(_with_format(XML[:-13] + piece * (60000 // len(piece)) + b"</ildgFormat>"))
  start = time.process_time()
  with contextlib.suppress(FieldFileError):
    ildg.read(tmp_path / "a")
  # Milliseconds; a pattern that goes back for each beginning takes ten seconds.
  assert time.process_time() - start < 1


def test_the_test_of_entities_replaces_the_description(tmp_path):
  assert _with_format(XML) == ILDG


def test_damaged_gzip(tmp_path):
  good = gzip.compress(NERSC)
  for content in (good[:-4], good[:100], good[:-6] + b"\0\0" + good[-4:], good[:12] + b"\xff" * 8 + good[20:]):
    _refuse(nersc.read, tmp_path / "a", content, "damaged gzip|claims")


def test_reading_takes_little_more_than_the_links(tmp_path):
  rng = np.random.default_rng(0)
  phases = np.exp(1j * rng.uniform(-3, 3, (4, 2, 8, 8, 8, 16)))
  u = np.zeros((4, 3, 3, 8, 8, 8, 16), complex)
  u[:, 0, 0], u[:, 1, 1], u[:, 2, 2] = phases[:, 0], phases[:, 1], phases.prod(axis=1).conj()
  ildg.write(tmp_path / "a", u)
  nersc.write(tmp_path / "b", u)
  for read, name in ((ildg.read, "a"), (nersc.read, "b")):
    tracemalloc.start()
    back = read(tmp_path / name)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(back, u)
    assert peak < 1.7 * u.nbytes


def test_a_source_gives_no_more_than_there_is(tmp_path):
  (tmp_path / "a").write_bytes(b"abc")
  with source.opened(tmp_path / "a") as file:
    assert file.read(2, "it") == b"ab" and file.limit == 3
    with pytest.raises(FieldFileError, match="it claims 2 bytes, 1 are left"):
      file.read(2, "it")
