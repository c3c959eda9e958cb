"""Time to the first result: imports, traces and compilations of a whole chain with an empty cache."""

import os
import re
import subprocess
import sys

import pytest
from benchmarks.conftest import CORES, Target

# As few fields as the figures need.
_REDUCED = [
  "--config.sampling.num_samples=128", "--config.sampling.num_haar=256", "--config.measurement.bins=8",
  "--config.hmc.trajectories=400", "--config.hmc.thermalisation=80", "--config.hmc.streams=4",
]  # fmt: skip


@pytest.mark.parametrize(
  "preset, extra, most", [("smoke", [], 30.0), ("reproduce", _REDUCED, 90.0)], ids=["smoke", "reproduce"]
)
def test_first_call(report, tmp_path, monkeypatch, preset, extra, most):
  """What `reproduce` says that it spent on imports, traces and compilations."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  spent = []
  for run in ("first", "second"):
    flags = [f"--preset={preset}", f"--config.output={tmp_path / run}", *extra]
    command = [sys.executable, "-m", "experiments.reproduce", *flags]
    # The binaries have all cores.
    free = (lambda: os.sched_setaffinity(0, CORES)) if CORES else None
    out = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=free)
    spent.append(float(re.search(r"([\d.]+) s of imports, traces and compilations", out.stderr).group(1)))
  report({"value": spent[0]}, Target("value", most), f"seconds; with the cache that it left {spent[1]:.1f}")
