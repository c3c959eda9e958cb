"""Programs and their flags: help, mistakes, several hosts, other people's folders."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from flowqcd import command_line, commands, presets
from flowqcd.io import ensembles
from flowqcd.runs import session, tree

ROOT = pathlib.Path(__file__).parents[1]
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


# Each in a fork, which finds all imported: ten times less work than starting each.
_HELP = """
import importlib, os, runpy, sys
for name in sys.argv[1:]:
  importlib.import_module(name)
for name in sys.argv[1:]:
  for word in ("--help", "-h"):
    if os.fork() == 0:
      sys.argv = [name, "--preset=smoke", word]
      sys.modules.pop(name)
      runpy.run_module(name, run_name="__main__", alter_sys=True)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    print(f"== {name} {word} {status}", flush=True)
"""


@pytest.fixture(scope="module")
def helps():
  """{binary and flag: (its status, what it shows)}."""
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-c", _HELP, *(f"experiments.{name}" for name in BINARIES)]
  shown = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300).stdout
  found, text = {}, []
  for line in shown.splitlines():
    if line.startswith("== "):
      _, name, word, status = line.split()
      found[name.split(".")[1], word] = int(status), "\n".join(text)
      text = []
    else:
      text.append(line)
  return found


@pytest.mark.parametrize("binary", BINARIES)
def test_help_is_complete(helps, binary):
  status, shown = helps[binary, "--help"]
  assert helps[binary, "-h"] == (status, shown) and status == 0
  for path, value, _, doc in tree.leaves(presets.PRESETS["smoke"]):
    assert f"--config.{path}:" in shown
    assert doc.split(":")[0].split()[0] in shown
  assert "  --config.theory.nc:\n      Number of colours: 1 (U(1)), 2 or 3. (default: 1)\n" in shown
  for name, line in presets.LINES.items():
    assert f"  {name} " in shown and line in shown


def test_the_overview_lists_stages_and_presets(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["/usr/bin/flowqcd", "--help"])
  command_line.main()
  shown = capsys.readouterr().out
  for name, command in command_line.COMMANDS.items():
    assert f"  {name} " in shown and command.line in shown
  for name in presets.PRESETS:
    assert f"  {name} " in shown and presets.LINES[name] in shown
  assert {path.stem for path in (ROOT / "experiments").glob("[a-z]*.py")} == set(command_line.COMMANDS)


@pytest.mark.parametrize("words", [[], ["smaple"], ["--preset=smoke", "sample"]])
def test_a_stage_that_is_none_is_told_which_there_are(monkeypatch, capsys, words):
  monkeypatch.setattr(sys, "argv", ["flowqcd", *words])
  with pytest.raises(SystemExit) as end:
    command_line.main()
  assert end.value.code == 2
  assert capsys.readouterr().err.startswith(
    f"error: no stage '{(words or [''])[0]}'; there are reproduce, train_marginal"
  )


def test_a_stage_by_its_name_is_the_function(tmp_path):
  changes = {"theory.num_flavours": "0", "hmc.trajectories": "80", "hmc.thermalisation": "20", "seed": "7"}
  flags = [f"--config.{name}={value}" for name, value in (changes | {"output": str(tmp_path / "a")}).items()]
  command = [sys.executable, "-m", "flowqcd", "run_hmc", "--preset=smoke", *flags]
  result = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  config = tree.override(presets.PRESETS["smoke"], changes | {"output": str(tmp_path / "b")})
  theirs = commands.run_hmc(config)
  np.testing.assert_array_equal(ensembles.Ensemble.open(tmp_path / "a" / "hmc").read("u"), theirs.read("u"))


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


def test_files_are_measured_into_a_folder_of_their_own():
  result = _run("measure", str(ROOT / "tests" / "data" / "numpy" / "rand_2222.nersc"))
  assert result.returncode == 2
  assert result.stderr == "error: measuring files needs --config.output=FOLDER, a new folder for what is found\n"


def test_tools_of_a_few_settings_have_flags_without_a_prefix():
  result = subprocess.run(
    [sys.executable, "-m", "experiments.coverage", "--seeds=many"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert result.returncode == 2 and result.stderr.strip() == "error: --seeds takes an integer, not 'many'"


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no libcuda")])
def test_devices_that_are_not_there_are_named_with_what_to_install(monkeypatch, error):
  def none():
    raise error

  monkeypatch.setattr(jax, "local_devices", none)
  monkeypatch.setattr(session, "_platforms", lambda: "cuda")
  with pytest.raises(
    ValueError, match=r"JAX_PLATFORMS = cuda, and JAX finds no such device.*'flowqcd\[cuda\]', or unset"
  ):
    session.start()


def test_interrupted_it_says_how_to_go_on(tmp_path):
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  command = [
    sys.executable, "-m", "experiments.run_hmc", "--preset=smoke", f"--config.output={tmp_path}/run",
    "--config.theory.num_flavours=0", "--config.hmc.trajectories=500000",
  ]  # fmt: skip
  # Where the tests run in the background of a shell, SIGINT is ignored, and children inherit that.
  heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
  process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
  for line in process.stderr:
    if "hmc steps" in line:
      break
  process.send_signal(signal.SIGINT)
  _, rest = process.communicate(timeout=100)
  assert process.returncode == 130
  assert rest.strip().splitlines()[-1] == "error: interrupted; the same command goes on from what is stored"
  assert "Traceback" not in rest
