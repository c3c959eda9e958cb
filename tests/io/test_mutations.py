"""Whatever is damaged in a file: a clear error, or the right field; no crash, no hang, no wrong field in silence."""

import gzip
import struct
import warnings

import numpy as np
import pytest
from fields import DATA, haar_in_numpy, openqcd_bytes
from mutations import mutants, outcome, tally

from flowqcd.io import ildg, milc, nersc, openqcd
from flowqcd.io.files import FieldFileError


def _ildg() -> bytes:
  return (DATA / "numpy" / "rand_2222.ildg").read_bytes()


def _nersc(name="rand_2222") -> bytes:
  return (DATA / "numpy" / f"{name}.nersc").read_bytes()


def _plain() -> bytes:
  """Bare LIME: neither description nor checksum."""
  good = _ildg()
  start = good.index(b"ildg-binary-data") - 16
  record = bytearray(good[start : start + 144 + 9216])
  record[6:8] = b"\xc0\0"
  return bytes(record)


def _milc() -> bytes:
  """Links of the public file on 2^4: eight steps from it in every direction are no lattice, but SU(3) they are."""
  good = (DATA / "other-codes" / "milc_v5_l4444").read_bytes()
  body = good[96 : 96 + 16 * 288]
  words = [int(w) for w in np.frombuffer(body, "<u4")]
  sums = [0, 0]
  for i, w in enumerate(words):
    for j, n in enumerate((i % 29, i % 31)):
      sums[j] ^= (w << n | w >> (32 - n)) & 0xFFFFFFFF
  return struct.pack("<5i", 20103, 2, 2, 2, 2) + good[20:88] + struct.pack("<2I", *sums) + body


_UNVOUCHED = "no SciDAC checksum|states no CHECKSUM"

FORMATS = {
  "ildg": (_ildg, ildg.read),
  "ildg.gz": (lambda: gzip.compress(_ildg(), mtime=0), ildg.read),
  "nersc": (_nersc, nersc.read),
  "nersc 2324": (lambda: _nersc("rand_2324"), nersc.read),
  "plain lime": (_plain, lambda path: ildg.read(path, extents=(2, 2, 2, 2))),
  "milc": (_milc, milc.read),
  "openqcd": (lambda: openqcd_bytes(haar_in_numpy((2, 2, 2, 2))), openqcd.read),
}


_BLIND = {"nersc": 2e-10, "nersc 2324": 2e-10, "openqcd": 2e-10}
"""NERSC's checksum is a sum, which exchanged last digits leave, and openQCD has none: links must be unitary to 1e-10."""


def _same(u, expected, most):
  return u.shape == expected.shape and np.abs(u - expected).max() <= most


def campaign(form: str, count: int, seed: int, folder) -> list:
  """Outcomes of `count` mutations of a small file in one of the formats. Raises AssertionError with the mutant's number."""
  make, read = FORMATS[form]
  good, path = make(), folder / "a"
  path.write_bytes(good)
  expected = _quiet(read, path)[0]
  same = lambda value: _same(value[0], expected, _BLIND.get(form, 0))
  outcomes = []
  for i, mutant in enumerate(mutants(good, count, seed)):
    path.write_bytes(mutant.data)
    try:
      outcomes.append(outcome(lambda: read(path), same, FieldFileError, str(path), _UNVOUCHED))
    except Exception as error:
      raise AssertionError(f"{form}, seed {seed}, mutant {i} ({mutant.kind}): {error!r}") from error
  return outcomes


def _quiet(read, path):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return read(path)


@pytest.mark.parametrize("form", list(FORMATS))
def test_mutations(tmp_path, form):
  counts = tally(campaign(form, 300, 2208, tmp_path))
  assert counts["refused"] > 100
  # Wrong is only what has no checksum, or lost it: rarely two mutations meet for that.
  assert form == "plain lime" or counts.get("unvouched", 0) < 5


def test_mutations_depend_on_the_seed_alone():
  good = _ildg()
  assert list(mutants(good, 20, 1)) == list(mutants(good, 20, 1))
  assert list(mutants(good, 20, 1)) != list(mutants(good, 20, 2))
  assert {m.kind for m in mutants(good, 400, 1) if "+" not in m.kind} == {
    "flip", "byte", "cut", "remove", "extend", "insert", "zero", "duplicate", "swap", "digit", "word"
  }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"a", b"12"])
def test_mutations_of_next_to_nothing(data):
  assert len(list(mutants(data, 200))) == 200


def test_a_wrong_field_in_silence_is_an_assertion():
  with pytest.raises(AssertionError, match="a wrong field"):
    outcome(lambda: 1, lambda value: False, FieldFileError, "a")
  with pytest.raises(KeyError):
    outcome(lambda: {}["a"], bool, FieldFileError, "a")
