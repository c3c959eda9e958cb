"""What a run's folder holds, and the settings that each thing in it hangs on: what can grow, what must be made anew."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

Settings = Mapping[str, Any]
"""{field: value} of a run, as JSON has them."""


class Product(NamedTuple):
  """Something that a stage stores and goes on with.

  names: of its files or folders in the run's; any of them that holds something tells that there is something. beside: what
  is made of it. settings: fields that decide what is in it, and groups of them, with their dot at the end. quick: made
  anew in no time. grows: (settings there, settings here) -> whether `growing` among them, where they differ, only ask for
  more of the same.
  """

  names: tuple[str, ...]
  settings: tuple[str, ...]
  beside: tuple[str, ...] = ()
  quick: bool = False
  growing: tuple[str, ...] = ()
  grows: Callable[[Settings, Settings], bool] = lambda there, here: False


class Difference(NamedTuple):
  """A field that decides what is in a folder, and differs; `absent` stands for no such field."""

  field: str
  there: Any
  here: Any
  by_default: bool

  def __str__(self) -> str:
    here = "no such field" if self.here is absent else self.here
    return f"{self.field}: {self.there} there{' by default' if self.by_default else ''}, {here} here"


absent = object()


def holds(product: Product, folder: pathlib.Path) -> bool:
  """Whether there is anything of it in a run's folder: an ensemble without parts is nothing."""
  return any(_holds(folder / name) for name in product.names)


def _holds(path: pathlib.Path) -> bool:
  if not path.is_dir():
    return path.exists()
  # Neither its description nor locks, what kills left, and what was moved aside.
  vain = lambda item: item.name.startswith((".", "damaged-")) or item.name == "ensemble.json"
  return not all(vain(item) for item in path.iterdir())


def differing(
  product: Product, there: Settings, here: Settings, defaults: Settings, free: Collection[str]
) -> list[Difference]:
  """What differs between the settings that made a product and these, and matters to it.

  defaults: of fields that those lack, since the version that wrote them did not have them. free: fields of the groups that
  never matter. A field that is unknown here matters.
  """
  known = {**defaults, **there}
  differ = lambda name: (name in here, here.get(name)) != (name in known, known.get(name))
  found = [name for name in sorted(here.keys() | known.keys()) if differ(name) and _matters(name, product, here, free)]
  if product.growing and product.grows(known, here):
    found = [name for name in found if name not in product.growing]
  return [Difference(name, known.get(name, absent), here.get(name, absent), name not in there) for name in found]


def _matters(name: str, product: Product, here: Settings, free: Collection[str]) -> bool:
  groups = tuple(group for group in product.settings if group.endswith("."))
  return name not in here or name in product.settings or (name.startswith(groups) and name not in free)


def move(products: Collection[Product], folder: pathlib.Path, aside: pathlib.Path) -> list[str]:
  """Move these products, and what was made of them, into a new folder; the names of what was moved."""
  names = dict.fromkeys(name for product in products for name in (*product.beside, *product.names))
  found = [path for name in names for path in sorted(folder.glob(name))]
  aside.mkdir()
  for path in found:
    path.rename(aside / path.name)
  return [path.name for path in found]


def discard(product: Product, folder: pathlib.Path) -> None:
  """Remove the records of a quick one."""
  for name in product.names:
    (folder / name).unlink(missing_ok=True)
