"""Pages for users: their code runs, and their commands are what they say."""

import os
import pathlib
import subprocess
import sys

import command_lines
import pytest
import snippets

from flowqcd.io import ensembles

ROOT = pathlib.Path(__file__).parents[1]
OWN = (ROOT / "docs" / "your_own.md").read_text()
BLOCKS = snippets.blocks(OWN)
FILES = {name: block for block in BLOCKS if (name := snippets.file_name(block))}
PROMPT = [block for block in BLOCKS if not snippets.file_name(block)]
SAMPLE, HMC = snippets.commands(OWN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A working directory with the files of the page."""
  path = tmp_path_factory.mktemp("own")
  for name, block in FILES.items():
    (path / name).write_text(block)
  return path


@pytest.fixture(autouse=True)
def _at_work(folder, monkeypatch):
  monkeypatch.chdir(folder)
  monkeypatch.syspath_prepend(str(folder))
  yield
  for name in FILES:
    sys.modules.pop(name.removesuffix(".py"), None)


def test_there_is_something_to_run():
  assert set(FILES) == {"my_flow.py", "my_action.py"} and len(PROMPT) == 7


@pytest.mark.parametrize("block", PROMPT, ids=range(len(PROMPT)))
def test_code_runs_as_it_stands(block, capsys):
  """Each block by itself: what it claims, it asserts."""
  exec(compile(block, "your_own.md", "exec"), {"__name__": "__main__"})
  assert "print(" not in block or capsys.readouterr().out


def test_a_run_with_the_pages_flow(folder):
  small = ["--config.training.num_steps=2", "--config.sampling.num_samples=64", "--config.sampling.num_haar=0",
           "--config.training.num_evaluate=16", "--config.compilation=quick"]  # fmt: skip
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  done = subprocess.run([sys.executable, *SAMPLE[1:], *small], env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert ensembles.Ensemble.open(folder / "runs" / "moebius" / "flow").read("u").shape == (64, 2, 1, 1, 4, 4)


def test_the_settings_of_a_run_with_the_pages_action():
  config = command_lines.parse(HMC)
  assert config.theory.gauge_action == "my_action:KIND" and config.theory.nc == 2
  with pytest.raises(SystemExit):
    command_lines.parse([*HMC, "--config.theory.gauge_actoin=wilson"])


def test_commands_for_clusters_have_their_flags():
  commands = snippets.commands((ROOT / "docs" / "clusters.md").read_text())
  assert len(commands) == 3
  for words in commands:
    job = words.index("docs/slurm.sh") + 1 if "docs/slurm.sh" in words else 0
    assert command_lines.parse(["flowqcd", *words[job:]] if job else words) is not None
