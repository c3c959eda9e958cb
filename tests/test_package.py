"""What `import flowqcd` gives: all modules by name, none of them imported before it is asked for."""

import ast
import importlib
import pathlib
import subprocess
import sys
import tomllib

import pytest
import snippets

import flowqcd

ROOT = pathlib.Path(__file__).parents[1]
FUNCTIONS = {"flowqcd.io": {"read"}}
"""Beside its modules, what a package gives by its own name."""
PACKAGES = [path.parent for path in sorted((ROOT / "flowqcd").rglob("__init__.py"))]


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_list_their_modules(folder):
  package = importlib.import_module(".".join(folder.relative_to(ROOT).parts))
  here = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
  public = {name for name in here if not name.startswith("_")} | FUNCTIONS.get(package.__name__, set())
  assert set(package.__all__) - {"__version__"} == public == set(dir(package))
  # Type checkers see the same names, which they read from the imports.
  imports = [n for n in ast.walk(ast.parse((folder / "__init__.py").read_text())) if isinstance(n, ast.ImportFrom)]
  assert {alias.name for node in imports for alias in node.names} - {"TYPE_CHECKING", "submodules"} == public


def test_modules_are_imported_when_asked_for():
  code = """
import sys, flowqcd
heavy = {"jax", "numpy", "h5py"}
assert not heavy & sys.modules.keys()
assert flowqcd.theory.gauge.wilson.__module__ == "flowqcd.theory.gauge"
assert "h5py" not in sys.modules
"""
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_functions_of_a_package_are_those_of_its_modules():
  from flowqcd.io import configurations, read

  assert flowqcd.io.read is read is configurations.read


def test_a_module_that_is_not_there():
  with pytest.raises(AttributeError, match="flowqcd.theory has no module 'gage'; it has determinant, dirac, gauge"):
    _ = flowqcd.theory.gage


def test_one_version():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  assert "version" in project["project"]["dynamic"] and "version" not in project["project"]
  assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "flowqcd.__version__"}
  assert flowqcd.__version__.count(".") == 2


def test_the_readme_names_what_there_is():
  """Every import of its snippets, and every attribute of what they import, exists."""
  found = snippets.blocks((ROOT / "README.md").read_text())
  assert len(found) >= 3
  for block in found:
    modules = {}
    for node in ast.walk(ast.parse(block)):
      if isinstance(node, ast.ImportFrom) and node.module.startswith("flowqcd"):
        modules |= {alias.name: getattr(importlib.import_module(node.module), alias.name) for alias in node.names}
    for node in ast.walk(ast.parse(block)):
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
        assert hasattr(modules[node.value.id], node.attr), node.attr
