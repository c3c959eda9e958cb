"""Time to the first result: imports, traces and compilations of a whole chain with an empty cache."""

import re
import subprocess
import sys

import pytest
from benchmarks.conftest import Target

_REDUCED = [
  "--config.sampling.num_samples=8", "--config.sampling.batch=8", "--config.sampling.num_haar=8",
  "--config.hmc.trajectories=10", "--config.hmc.thermalisation=10", "--config.hmc.thin=10", "--config.hmc.streams=2",
]  # fmt: skip


@pytest.mark.parametrize("preset, most", [("smoke", 30.0), ("reproduce", 90.0)])
def test_first_call(report, tmp_path, monkeypatch, preset, most):
  """What `reproduce` says that it spent on imports, traces and compilations."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  spent = []
  for run in ("first", "second"):
    flags = [f"--preset={preset}", f"--config.output={tmp_path / run}", *_REDUCED]
    command = [sys.executable, "-m", "experiments.reproduce", *flags]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    spent.append(float(re.search(r"([\d.]+) s of imports, traces and compilations", out.stderr).group(1)))
  report({"value": spent[0]}, Target("value", most), f"seconds; with the cache that it left {spent[1]:.1f}")
