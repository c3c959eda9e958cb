"""Imports point down only, and each third-party library stays in its layer."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RANK = {
  "_lazy": -2, "types": -2, "domains": -1, "hosts": -1, "distributed": 0,
  "lattice": 1, "theory": 2, "mcmc": 3, "flows": 3, "io": 3,
  "models": 4, "training": 5, "analysis": 5, "runs": 6, "stages": 7,
  "tools": 8, "experiment": 8, "presets": 9, "commands": 10, "command_line": 11, "__main__": 12,
}  # fmt: skip
ALLOWED = {
  "haiku": ("flows", "models"),
  "optax": ("training",),
  "absl": ("runs/flags.py",),
  "matplotlib": ("analysis/figures.py",),
  "h5py": ("io",),
  "orbax": ("io",),
}
FILES = sorted((ROOT / "flowqcd").rglob("*.py"))


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_layers(path):
  inside = path.relative_to(ROOT / "flowqcd")
  mine = inside.parts[0].removesuffix(".py")
  if mine == "__init__":
    return
  for name in _imports(path):
    top, *rest = name.split(".")
    assert top != "experiments"
    if top == "flowqcd" and rest[0] != mine:
      assert RANK[rest[0]] < RANK[mine], f"{inside} imports {name}"
    if top in ALLOWED:
      assert any(str(inside).startswith(place) for place in ALLOWED[top]), f"{inside} imports {name}"
    assert top != "pickle" and ("pmap" not in rest or mine == "distributed")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_distributed_says_pmap_and_nobody_prints(path):
  text = path.read_text()
  assert path.name == "distributed.py" or "pmap" not in text
  calls = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
  assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)


def test_no_module_imports_itself_in_a_circle():
  modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
  graph = {name: {other for other in _imports(path) if other in modules} for name, path in modules.items()}
  assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(FILES)


def test_binaries_are_a_docstring_and_main():
  lines = [path.read_text().splitlines() for path in (ROOT / "experiments").glob("*.py")]
  assert len(lines) > 10 and max(map(len, lines)) <= 30
