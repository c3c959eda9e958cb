"""Every command of README.md: that its flags are there, and, slowly, that it runs."""

import os
import pathlib
import shutil
import subprocess
import sys

import command_lines
import programs
import pytest
import snippets

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = snippets.commands((ROOT / "README.md").read_text())
SHOWN = [" ".join(words) for words in COMMANDS]

MAKE = {"make reproduce": ["python", "-m", "experiments.reproduce", "--preset=reproduce"]}
"""What a target runs once it has set up .venv."""
NOT_RUN = {
  "make test": "it runs these tests",
  "python -m experiments.reproduce --preset=paper --coordinator=HOST:PORT --num_processes=N --process_id=I": (
    "it needs several hosts; tests/test_hosts.py has them"
  ),
}

_EVERY = {
  "theory.nc": "1", "theory.lattice": "4,4", "theory.boundary": "-1,1", "compilation": "quick",
  "training.batch": "8", "training.chunk": "4", "training.num_evaluate": "8", "training.evaluate_every": "1",
  "conditional_training.steps": "1,1", "conditional_training.batches": "8,8", "conditional_training.rates": "1e-3,1e-3",
  "conditional_training.chunk": "4", "conditional_training.num_evaluate": "8", "conditional.draws": "4",
  "sampling.num_samples": "64", "sampling.batch": "32", "sampling.num_haar": "64", "coupling.layers": "8",
  "conditional.ptcn.layers": "8", "conditional.ptcn.hops": "2", "conditional.ptcn.copies": "2",
  "conditional.ptcn.trunk": "2",
  # As long as it takes streams to agree: shorter chains are refused.
  "hmc.streams": "4", "hmc.trajectories": "400", "hmc.thin": "4", "hmc.thermalisation": "50",
  "measurement.flow_time": "0.1",
}  # fmt: skip
"""Two-dimensional U(1) and few of everything."""
_TRAINED = _EVERY | {"training.num_steps": "1"}
# Two stages are too few for a fitted flow between them.
_ANNEALED = _TRAINED | {"annealing.stages": "2", "annealing.transport": "false", "hmc.steps": "10", "flow.steps": "8"}

SMALL: dict[tuple[str, str], dict[str, str]] = {
  ("reproduce", "smoke"): _TRAINED,
  ("reproduce", ""): _EVERY,
  # What is exported later has to be SU(3) in four dimensions.
  ("reproduce", "reproduce"): _EVERY | {
    "theory.nc": "3", "theory.lattice": "4,4,4,4", "theory.boundary": "-1,1,1,1", "theory.num_flavours": "0",
    "sampling.num_samples": "32", "sampling.batch": "32", "hmc.trajectories": "160", "hmc.thermalisation": "20",
    "flow.order": "1",
  },
  ("reproduce", "paper_desktop"): _TRAINED,
  ("reproduce", "su3_2d"): _TRAINED,
  ("reproduce", "schwinger"): _TRAINED,
  ("train_marginal", ""): _TRAINED,
  ("train_marginal", "paper_small"): _TRAINED,
  ("run_hmc", ""): _EVERY,
  ("sample", "su3_4d"): _TRAINED | {"flow.steps": "8"},
  ("anneal", "su3_4d"): _ANNEALED,
  ("compare_chains", "su3_4d"): _EVERY | {"theory.nc": "3", "hmc.trajectories": "60", "hmc.thin": "2"},
  ("profile_training", "paper"): _EVERY,
  ("check", ""): {},
  ("measure", ""): {"measurement.flow_time": "0.1", "compilation": "quick"},
  ("weigh", ""): {},
  ("export", ""): {},
}  # fmt: skip
"""What is added to a command so that it takes seconds, by its stage and its preset."""


def _key(words):
  name, rest = command_lines.stage(words)
  presets = [word.split("=")[1] for word in rest if word.startswith("--preset=")]
  return name, presets[0] if presets else ""


def _command(words):
  """A command of this package, with numbers for its placeholders."""
  numbers = {"HOST:PORT": "localhost:1", "N": "1", "I": "0"}
  words = MAKE.get(" ".join(words), words)
  return [
    f"{name}={numbers.get(value, value)}" if equals else name
    for name, equals, value in (w.partition("=") for w in words)
  ]


def _small(words):
  """The flags that make a command small."""
  return [f"--config.{field}={value}" for field, value in SMALL[_key(words)].items()]


def test_targets_run_what_stands_here():
  text = (ROOT / "Makefile").read_text()
  for target, words in MAKE.items():
    assert f"\n{target.split()[1]}: .venv/run.stamp\n\t$(BIN)/{' '.join(words)} $(FLAGS)\n" in text


@pytest.mark.parametrize("given", COMMANDS, ids=SHOWN)
def test_flags_are_there(given):
  """Names, values and combinations, as the program reads them; with those that make it small as well."""
  shown, words = " ".join(given), _command(given)
  if words[0] == "make":
    assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
  else:
    assert command_lines.parse(words) is not None
    if shown not in NOT_RUN:
      assert command_lines.parse([*words, *_small(words)]) is not None


def test_every_command_is_run_or_has_a_reason():
  assert len(SHOWN) > 20
  assert set(NOT_RUN) <= set(SHOWN) and set(MAKE) <= set(SHOWN)
  keys = {_key(_command(words)) for words, shown in zip(COMMANDS, SHOWN) if shown not in NOT_RUN}
  assert keys == set(SMALL)


def test_a_flag_that_is_not_there_is_noticed():
  with pytest.raises(SystemExit):
    command_lines.parse(["flowqcd", "sample", "--preset=su3_4d", "--config.training.nonsense=1"])
  with pytest.raises(SystemExit):
    command_lines.parse(["flowqcd", "check", "lat.1", "--config.json=1"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with configurations lat.*, in which all commands are run."""
  path = tmp_path_factory.mktemp("readme")
  for i, file in enumerate(sorted((ROOT / "tests" / "data" / "tmlqcd").glob("*.lime"))):
    shutil.copy(file, path / f"lat.{i}")
  return path


_RUN = [pytest.param(words, id=shown) for words, shown in zip(COMMANDS, SHOWN) if shown not in NOT_RUN]


@pytest.mark.slow
@pytest.mark.parametrize("words", _RUN)
def test_commands_run(folder, words):
  """In their order, each in a process of its own, smaller than README has it."""
  words = _command(words)
  name, rest = command_lines.stage(words)
  files = [str(path) for word in rest for path in (sorted(folder.glob(word)) if "*" in word else [word])]
  environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": programs.xla_flags(2, "")}
  program = ["flowqcd", name] if words[0] == "flowqcd" else [f"experiments.{name}"]
  command = [sys.executable, "-m", *program, *files, *_small(words)]
  done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr[-2000:]
