"""What a year of use does to a project's files, in an hour: `make campaign`, or `python tests/campaign.py PART [NUMBER]`.

  mutations  NUMBER damaged copies over all kinds of files that are read: each is refused by name, or reads right.
  kills      NUMBER kills (SIGKILL, SIGTERM, SIGINT) of every binary at any instant: the run ends as one left alone.
  disk       NUMBER runs that meet a full disk: one line that names what could not be written, and then the same.

Each prints a table, and ends with status 1 where anything else happened.
"""

from __future__ import annotations

import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import damaged
import numpy as np
from mutations import tally

from flowqcd.io import ensembles, metrics

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Stage(NamedTuple):
  """A binary on the smallest theory, and flags of its own."""

  binary: str
  flags: tuple[str, ...] = ()
  processes: int = 1

  @property
  def name(self) -> str:
    """As it stands in tables."""
    return self.binary + (f" x {self.processes}" if self.processes > 1 else "")


_GAUGE = ("--config.theory.num_flavours=0",)
STAGES = (
  Stage("train_marginal"),
  Stage("train_conditional"),
  Stage("sample"),
  Stage("run_hmc"),
  Stage("measure"),
  Stage("anneal", (*_GAUGE, "--config.annealing.moves=heatbath", "--config.annealing.stages=4")),
  Stage("reproduce"),
  Stage("train_marginal", processes=2),
  Stage("train_conditional", processes=2),
)


def mutations(count: int, seed: int = 2026) -> int:
  """The number of kinds of files of which a damaged copy was read wrong, or ended in an error that names nothing."""
  makers, bad = damaged.CONFIGURATIONS | damaged.STORES, 0
  print(f"{'kind':14} {'copies':>7} {'refused':>8} {'right':>7} {'wrong, warned':>14}")
  for kind, make in makers.items():
    with tempfile.TemporaryDirectory() as folder:
      cases, outcomes = make(pathlib.Path(folder)), []
      for i, case in enumerate(cases):
        try:
          outcomes += damaged.run(case, count // len(makers) // len(cases), seed + i)
        except AssertionError as error:
          bad += 1
          print(f"FAILED {kind}: {error}", flush=True)
      n = tally(outcomes)
      print(
        f"{kind:14} {len(outcomes):7} {n.get('refused', 0):8} {n.get('right', 0):7} {n.get('unvouched', 0):14}",
        flush=True,
      )
  return bad


def start(
  stage: Stage, folder: pathlib.Path, cache: pathlib.Path, limit: int | None = None
) -> list[subprocess.Popen[str]]:
  """The processes of a binary at work; limit: bytes that any file of it may have."""
  command = [sys.executable, "-m", f"experiments.{stage.binary}", "--preset=smoke", f"--config.output={folder}"]
  environment = os.environ | {
    "PYTHONPATH": str(ROOT),
    "XDG_CACHE_HOME": str(cache),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // stage.processes}",
  }
  bound = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
  with socket.socket() as free:
    free.bind(("localhost", 0))
    together = [f"--coordinator=localhost:{free.getsockname()[1]}", f"--num_processes={stage.processes}"]
  hosts = [[*together, f"--process_id={i}"] for i in range(stage.processes)] if stage.processes > 1 else [[]]
  return [
    subprocess.Popen(
      [*command, *stage.flags, *host], env=environment, cwd=ROOT, preexec_fn=bound,
      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    for host in hosts
  ]  # fmt: skip


def differences(ours: pathlib.Path, theirs: pathlib.Path) -> list[str]:
  """What two runs of one configuration stored differently: columns of ensembles, metrics but for times."""
  found = []
  for record in sorted(theirs.glob("*/ensemble.json")):
    name = record.parent.name
    if not (ours / name).exists():
      found.append(f"no {name}")
      continue
    a, b = (ensembles.Ensemble.open(folder / name) for folder in (ours, theirs))
    found += [f"{name} {c}" for c in b.names if not np.array_equal(a.read(c), b.read(c), equal_nan=True)]
  for log in sorted(theirs.glob("*.jsonl")):
    a, b = (metrics.read(folder / log.name) for folder in (ours, theirs))
    columns = [c for c in b if "seconds" not in c]
    found += [f"{log.name} {c}" for c in columns if not np.array_equal(a.get(c, ()), b[c], equal_nan=True)]
  return found


def _finish(stage: Stage, folder: pathlib.Path, cache: pathlib.Path) -> float:
  """Run to the end; seconds that it took. Raises AssertionError where it does not end well."""
  begin = time.monotonic()
  for process in start(stage, folder, cache):
    _, text = process.communicate()
    assert process.returncode == 0, f"{stage.name} ended with {process.returncode}: {text[-500:]}"
  return time.monotonic() - begin


def _kill(processes: list[subprocess.Popen[str]], rng: random.Random) -> None:
  """A signal to one of the processes; the others, which wait for it, go within a second."""
  first = rng.choice(processes)
  first.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
  for process in processes:
    if process is not first:
      time.sleep(rng.random())
      process.kill()
  for process in processes:
    process.communicate()


def kills(count: int, seed: int = 2026) -> int:
  """Stages whose run, killed again and again, did not end as an undisturbed one."""
  rng, bad, each = random.Random(seed), 0, max(1, count // len(STAGES))
  print(f"{'binary':21} {'kills':>6} {'runs':>5} {'seconds':>8}  result")
  for stage in STAGES:
    with tempfile.TemporaryDirectory() as place:
      base = pathlib.Path(place)
      # Twice: the second finds its programs compiled, as all that follow.
      _finish(stage, base / "first", base / "cache")
      seconds, done, runs, wrong = _finish(stage, base / "good", base / "cache"), 0, 0, []
      while done < each:
        runs += 1
        folder = base / f"run{runs}"
        for _ in range(min(3, each - done)):
          processes = start(stage, folder, base / "cache")
          time.sleep(seconds * rng.random())
          _kill(processes, rng)
          done += 1
        try:
          _finish(stage, folder, base / "cache")
          wrong += differences(folder, base / "good")
        except AssertionError as error:
          wrong.append(str(error))
      bad += bool(wrong)
      print(f"{stage.name:21} {done:6} {runs:5} {seconds:8.1f}  {'; '.join(wrong) or 'equal'}", flush=True)
  return bad


def disk(count: int, seed: int = 2026) -> int:
  """Runs that met a full disk and neither said so in a line nor ended as an undisturbed one after it."""
  rng, bad, stage = random.Random(seed), 0, Stage("reproduce")
  with tempfile.TemporaryDirectory() as place:
    base = pathlib.Path(place)
    _finish(stage, base / "good", base / "cache")
    sizes = sorted(p.stat().st_size for p in (base / "good").rglob("*") if p.is_file())
    print(f"{'largest file':>13} {'status':>7}  said, and the result of a run after it")
    for i in range(count):
      folder, limit = base / f"run{i}", rng.choice(sizes) - 1
      # A cache of its own is not what is tried here: it would fill first.
      (process,) = start(stage, folder, base / "cache", max(limit, 1))
      _, text = process.communicate()
      said = [line for line in text.splitlines() if line.startswith("error:")]
      fine = (process.returncode == 2 and len(said) == 1 and str(folder) in said[0]) or process.returncode == 0
      try:
        _finish(stage, folder, base / "cache")
        wrong = differences(folder, base / "good")
      except AssertionError as error:
        wrong = [str(error)]
      bad += bool(wrong) or not fine
      line = (said or text.splitlines()[-1:] or [""])[-1].replace(str(base), "")
      print(f"{limit:13} {process.returncode:7}  {line[:90]}; {'; '.join(wrong) or 'equal'}", flush=True)
  return bad


PARTS = {"mutations": (mutations, 100_000), "kills": (kills, 100), "disk": (disk, 20)}


def main(part: str = "", number: str = "") -> int:
  """All parts, or one of them; how many things went wrong."""
  if part and part not in PARTS:
    raise SystemExit(f"no part '{part}'; say one of {', '.join(PARTS)}")
  return sum(run(int(number or usual)) for name, (run, usual) in PARTS.items() if part in ("", name))


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:3]) > 0)
