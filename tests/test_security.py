"""Nothing that a file or a flag says is run: no unpickling, no evaluation, no shell, no XML parser."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted([*(ROOT / "flowqcd").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])

MODULES = (
  "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "shelve", "torch", "yaml",
  "ruamel", "xml", "lxml", "jax.experimental.serialize_executable",
)  # fmt: skip
"""Those that unpickle, those that build any object from text, and parsers that expand entities."""
BUILTINS = ("eval", "exec", "compile", "__import__")
CALLS = (
  "builtins", "os.system", "os.popen", "os.spawn", "subprocess.getoutput",
  "subprocess.getstatusoutput", "pandas.read_pickle", "runpy", "code.interact", "importlib.import_module",
)  # fmt: skip
LOADS = ("numpy.load", "numpy.lib.npyio.load", "numpy.lib.format.read_array", "numpy.lib.npyio.NpzFile")
"""They unpickle where the file has objects, unless told otherwise."""

EXCEPTIONS = {
  "flowqcd/runs/own.py": "importlib.import_module",
  "flowqcd/_lazy.py": "importlib.import_module",  # Of names in a list of the package's own.
}
"""The one place that runs what a name says, a flow or action of the user's own: see tests/runs/test_marginals.py."""


def _is(name: str, listed: tuple[str, ...]) -> bool:
  return any(name == known or name.startswith(f"{known}.") for known in listed)


def _imports(tree: ast.AST) -> dict[str, str]:
  """What each imported name stands for."""
  names = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
  return names


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
  """The full name of a.b.c, empty for what is no such chain."""
  if isinstance(node, ast.Name):
    return names.get(node.id, node.id)
  if isinstance(node, ast.Attribute):
    return f"{inside}.{node.attr}" if (inside := _dotted(node.value, names)) else ""
  return ""


def _constant(call: ast.Call, keyword: str) -> object:
  """The literal value of a keyword, None where it is not given and Ellipsis where it is no literal."""
  for k in call.keywords:
    if k.arg == keyword:
      return k.value.value if isinstance(k.value, ast.Constant) else ...
  return None


def offences(source: str) -> list[str]:
  """What a source must not have, as "line: what"."""
  tree = ast.parse(source)
  names, found = _imports(tree), []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [f"{node.lineno}: import {a.name}" for a in node.names if _is(a.name, MODULES)]
    elif isinstance(node, ast.ImportFrom) and node.module:
      full = [f"{node.module}.{a.name}" for a in node.names]
      found += [f"{node.lineno}: import {name}" for name in full if _is(name, (*MODULES, *CALLS))]
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in BUILTINS:
      # Not only calls: map(eval, lines) runs it too.
      found.append(f"{node.lineno}: {node.id}")
    elif isinstance(node, ast.Attribute):
      name, root = _dotted(node, names), _dotted(node, {})
      if root.split(".")[0] in names and _is(name, (*CALLS, *MODULES)):
        found.append(f"{node.lineno}: {name}")
    elif isinstance(node, ast.Call):
      if _constant(node, "shell") not in (None, False):
        found.append(f"{node.lineno}: shell")
      given = _constant(node, "allow_pickle")
      if given not in (None, False) or (_dotted(node.func, names) in LOADS and given is not False):
        found.append(f"{node.lineno}: allow_pickle")
  return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sources(path):
  excepted = EXCEPTIONS.get(str(path.relative_to(ROOT)))
  assert [x for x in offences(path.read_text()) if x.split(": ")[1] != excepted] == []


@pytest.mark.parametrize(
  "source",
  [
    "import pickle",
    "import importlib\nimportlib.import_module(x)",
    "import xml.etree.ElementTree as ET",
    "from xml.dom import minidom",
    "from yaml import safe_load",
    "def f(): from dill import loads",
    "from jax.experimental import serialize_executable",
    "import jax\njax.experimental.serialize_executable.deserialize_and_load(x)",
    "import pandas as pd\npd.read_pickle(x)",
    "eval(x)",
    "list(map(eval, x))",
    "exec(x)",
    "compile(x, '', 'exec')",
    "import builtins\nbuiltins.eval(x)",
    "import os\nos.system(x)",
    "from os import popen",
    "import subprocess\nsubprocess.run(x, shell=True)",
    "from subprocess import run\nrun(x, shell=y)",
    "import numpy as np\nnp.load(x)",
    "from numpy import load\nload(x)",
    "import numpy\nnumpy.load(x, allow_pickle=True)",
    "np.save(x, y, allow_pickle=flag)",
  ],
)
def test_what_is_refused(source):
  assert offences(source)


@pytest.mark.parametrize(
  "source",
  [
    "import numpy as np\nnp.load(x, allow_pickle=False)",
    "import re\nre.compile(x)",
    "import subprocess\nsubprocess.run([x], shell=False)",
    "import json\njson.load(x)",
    "import jax\njax.ensure_compile_time_eval()",
    "model.eval()",
    "lowered.compile()",
    "class A:\n  compile: float",
    "xml = f(x)\nxml.find(y)",
  ],
)
def test_what_is_not(source):
  assert offences(source) == []
