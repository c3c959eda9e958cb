import dataclasses
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from flowqcd.runs import configuration, presets

ROOT = pathlib.Path(__file__).parents[2]
BINARIES = [
  "train_marginal",
  "train_conditional",
  "profile_training",
  "sample",
  "run_hmc",
  "compare_chains",
  "measure",
  "make_figures",
  "reproduce",
]


def _run(binary, *flags, folder=None, timeout=300):
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  output = [f"--config.output={folder}"] if folder else []
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{binary}", *flags, *output],
    capture_output=True, text=True, env=environment, cwd=ROOT, timeout=timeout,
  )  # fmt: skip


def test_every_leaf_is_documented():
  for path, _, _, doc in configuration.leaves(presets.PRESETS["paper"]):
    assert doc, f"{path} has no line of help"


@pytest.mark.parametrize("name, config", presets.PRESETS.items())
def test_every_leaf_survives_its_own_flag(name, config):
  changes = {path: configuration._text(value) for path, value, _, _ in configuration.leaves(config)}
  assert configuration.override(config, changes) == config


def test_overrides_by_type():
  config = configuration.override(
    presets.PRESETS["reproduce"],
    {
      "theory.lattice": "8x4x4x6",
      "theory.beta": "2",
      "training.path_gradient": "false",
      "flow.steps": "4",
    },
  )
  assert config.theory.lattice == (8, 4, 4, 6) and config.theory.beta == 2.0
  assert config.training.path_gradient is False and config.flow.steps == 4
  assert dataclasses.replace(config, theory=presets.PRESETS["reproduce"].theory) != config


@pytest.mark.parametrize("path, text, words", [
  ("theory.lattice", "4,x", "an integer"),
  ("theory.lattice", "4,4,4", "2 or 4 dimensions"),
  ("theory.lattice", "4,4,4,5", "even extents"),
  ("theory.lattice", "4,4,4,2", "at least 3"),
  ("theory.nc", "4", "1, 2 or 3"),
  ("theory.beta", "-1", "not be negative"),
  ("theory.kappa", "0", "positive"),
  ("theory.boundary", "1,1", "one phase per direction"),
  ("theory.num_flavours", "1", "0 or 2"),
  ("flow.order", "3", "order"),
  ("flow.loops", "aab", "not closed"),
  ("flow.loops", "aaaabAAAAB", "wider than the lattice"),
  ("annealing.loops", "aabAAB,abAcBC", "make up W1"),
  ("hmc.integrator", "euler", "leapfrog"),
  ("hmc.trajectories", "7", "multiple"),
  ("hmc.tau", "0", "tau"),
  ("hmc.streams", "0", "at least 1"),
  ("sampling.num_samples", "0", "at least 1"),
  ("sampling.batch", "1.5", "an integer"),
  ("training.determinant", "guess", "stochastic"),
  ("training.path_gradient", "maybe", "true or false"),
  ("measurement.flow_time", "-1", "flow_time"),
  ("optimizer.learning_rate", "0", "learning_rate"),
  ("precision", "half", "single or double"),
])  # fmt: skip
def test_bad_values_are_named(path, text, words):
  with pytest.raises(ValueError, match=words):
    configuration.override(presets.PRESETS["reproduce"], {path: text})


# Each in a fork, which finds all imported: ten times less work than starting each.
_HELP = """
import importlib, os, runpy, sys
names = [f"experiments.{name}" for name in sys.argv[1:]]
for name in names:
  importlib.import_module(name)
for name in names:
  print(f"== {name}", flush=True)
  if os.fork() == 0:
    sys.argv = [name, "--preset=smoke", "--help"]
    del sys.modules[name]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
  os.wait()
"""


@pytest.fixture(scope="module")
def helps():
  """{binary: what --help shows}."""
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-c", _HELP, *BINARIES]
  shown = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300).stdout
  return dict(text.split("\n", 1) for text in shown.split("== ")[1:])


@pytest.mark.parametrize("binary", BINARIES)
def test_help_is_complete(helps, binary):
  shown = helps[f"experiments.{binary}"]
  for path, value, _, doc in configuration.leaves(presets.PRESETS["smoke"]):
    assert f"--config.{path}" in shown
    assert doc.split(":")[0].split()[0] in shown


@pytest.mark.parametrize("flags, words", [
  (["--nonsense=1"], "nonsense"),
  (["--preset=nothing"], "preset"),
  (["--config.theory.beta=much"], "a number"),
  (["stray"], "stray"),
  (["--config.theory.lattice=4,4,4,5", "--preset=reproduce"], "even extents"),
  (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], "address:port"),
  (["--coordinator=localhost:1", "--num_processes=2", "--process_id=0", "--coordinator_timeout=0"], "positive"),
])  # fmt: skip
def test_mistakes_get_one_line_and_status_two(tmp_path, flags, words):
  result = _run("sample", "--preset=smoke", *flags, folder=tmp_path / "a")
  assert result.returncode == 2
  assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("error: ")
  assert words in result.stderr
  assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("process", [0, 1])
def test_a_lonely_process_ends_with_one_line(tmp_path, process):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  hosts = [f"--coordinator={address}", "--num_processes=2", f"--process_id={process}", "--coordinator_timeout=3"]
  result = _run("train_marginal", "--preset=smoke", *hosts, folder=tmp_path / "a", timeout=100)
  assert result.returncode == 1
  line = f"error: coordinator {address}: expected 2 processes, not all there after 3 s; this is process {process}\n"
  assert result.stderr == line
  assert not (tmp_path / "a").exists()


def test_other_peoples_folders_are_left_alone(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "thesis.tex").write_text("all my work")
  result = _run("sample", "--preset=smoke", folder=tmp_path / "a")
  assert result.returncode == 2 and "not empty" in result.stderr
  assert [p.name for p in (tmp_path / "a").iterdir()] == ["thesis.tex"]
  (tmp_path / "file").write_text("")
  assert _run("sample", "--preset=smoke", folder=tmp_path / "file").returncode == 2


def test_tools_of_a_few_settings_have_flags_without_a_prefix():
  result = subprocess.run(
    [sys.executable, "-m", "experiments.coverage", "--seeds=many"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert result.returncode == 2 and result.stderr.strip() == "error: --seeds takes an integer, not 'many'"
