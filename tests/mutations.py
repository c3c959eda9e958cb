"""Damage to the bytes of any file, from a seed: what disks, networks and wrong scripts do, and what fools parsers."""

import collections
import random
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Mutant(NamedTuple):
  """A damaged copy: the kinds of damage it took, joined by +, and its bytes."""

  kind: str
  data: bytes


def mutants(data: bytes, count: int, seed: int = 0) -> Iterator[Mutant]:
  """`count` damaged copies; the i-th depends on seed and i alone."""
  text = [m.span() for m in re.finditer(rb"[\t\n\r -~]{12,}", data)]
  for i in range(count):
    rng = random.Random(f"{seed} {i}")
    copy, kinds = bytearray(data), []
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
      kind = rng.choice(list(_KINDS))
      _KINDS[kind](copy, rng, _place(len(copy), text, rng))
      kinds.append(kind)
    yield Mutant("+".join(kinds), bytes(copy))


def _place(size: int, text: list[tuple[int, int]], rng: random.Random) -> int:
  """A byte to hurt: as often in or near text as anywhere, since headers are where parsers fail."""
  if text and rng.random() < 0.5:
    start, stop = rng.choice(text)
    return max(0, min(size - 1, rng.randrange(start - 16, stop + 16)))
  return rng.randrange(max(1, size))


def _block(rng: random.Random) -> int:
  return rng.choice([1, 2, 8, 16, 72, 144, 512, rng.randrange(1, 1000)])


def _flip(data: bytearray, rng: random.Random, at: int) -> None:
  if data:
    data[at] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, rng: random.Random, at: int) -> None:
  data[at : at + 1] = bytes([rng.randrange(256)])


def _cut(data: bytearray, rng: random.Random, at: int) -> None:
  del data[at:]


def _remove(data: bytearray, rng: random.Random, at: int) -> None:
  del data[at : at + _block(rng)]


def _extend(data: bytearray, rng: random.Random, at: int) -> None:
  n = _block(rng)
  data += rng.choice([bytes(n), b"\n", rng.randbytes(n), data[-n:], data[:n]])


def _insert(data: bytearray, rng: random.Random, at: int) -> None:
  data[at:at] = rng.randbytes(_block(rng))


def _zero(data: bytearray, rng: random.Random, at: int) -> None:
  n = len(data[at : at + _block(rng)])
  data[at : at + n] = bytes(n)


def _duplicate(data: bytearray, rng: random.Random, at: int) -> None:
  data[at:at] = data[at : at + _block(rng)]


def _swap(data: bytearray, rng: random.Random, at: int) -> None:
  """Two blocks of equal length that do not overlap."""
  n = min(_block(rng), len(data) // 2)
  first = min(at, len(data) - 2 * n)
  second = rng.randrange(first + n, len(data) - n + 1)
  data[first : first + n], data[second : second + n] = data[second : second + n], data[first : first + n]


def _digit(data: bytearray, rng: random.Random, at: int) -> None:
  """Another digit in place of the first one from there on."""
  found = re.compile(rb"[0-9]").search(data, at)
  if found:
    data[found.start()] = ord(rng.choice("0123456789"))


def _word(data: bytearray, rng: random.Random, at: int) -> None:
  word = rng.choice([b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"nan", b"1e999", b"-1", b"=", b"<", b"\0", b"9" * 30])
  data[at : at + len(word)] = word


_KINDS: dict[str, Callable[[bytearray, random.Random, int], None]] = {
  "flip": _flip,
  "byte": _byte,
  "cut": _cut,
  "remove": _remove,
  "extend": _extend,
  "insert": _insert,
  "zero": _zero,
  "duplicate": _duplicate,
  "swap": _swap,
  "digit": _digit,
  "word": _word,
}


class Outcome(NamedTuple):
  """refused: the project's own error; right: read as the original; unvouched: otherwise, and a warning said that nothing
  vouches for it."""

  kind: str
  detail: str


def outcome(
  read: Callable[[], Any], same: Callable[[Any], bool], error: type[Exception], name: str, unvouched: str = r"(?!)"
) -> Outcome:
  """What became of reading a damaged file.

  error: what a refusal must be, with `name` in its text; unvouched: a pattern of the warning that excuses a wrong field.
  Anything else is an AssertionError, or the error that the reader let pass.
  """
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    try:
      value = read()
    except error as refusal:
      assert name in str(refusal), f"the error does not name the file: {refusal}"
      return Outcome("refused", re.sub(r"\d[\d.a-fx]*", "#", str(refusal).replace(name, ""))[:60])
  if same(value):
    return Outcome("right", "with a warning" if said else "in silence")
  texts = [str(w.message) for w in said]
  assert any(re.search(unvouched, text) for text in texts), f"a wrong field was read; warnings: {texts}"
  return Outcome("unvouched", unvouched)


def tally(outcomes: list[Outcome]) -> dict[str, int]:
  """How many of each kind."""
  return dict(collections.Counter(o.kind for o in outcomes))
