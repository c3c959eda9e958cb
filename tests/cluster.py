"""A run under a real SLURM that is stopped twice and put back, and ends as one left alone: `make cluster-test`, as root.

Needs Debian's packages slurm-wlm and munge. Controller, node and queue are this machine, in a folder that is deleted at the
end; two tasks run docs/slurm.sh on CPUs. SIGUSR1, as before the end of a job's time, and `scontrol requeue`, as for a job
of more importance, come while HMC runs.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import campaign

ROOT = pathlib.Path(__file__).resolve().parent.parent
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
_CONFIGURATION = """
ClusterName=flowqcd
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=120
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_FLAGS = ("--preset=smoke", "--config.hmc.trajectories=4000", "--config.compilation=quick")


def _say(text: str) -> None:
  print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def _call(*words: str) -> str:
  return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _start(folder: pathlib.Path) -> None:
  """SLURM on this machine, its files in the folder."""
  for name in ("state", "spool"):
    (folder / name).mkdir()
  host = _call("hostname", "-s")
  (folder / "slurm.conf").write_text(_CONFIGURATION.format(host=host, folder=folder))
  os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
  if subprocess.run(["pgrep", "munged"], capture_output=True).returncode:
    _call("munged", "--force")
  _call("slurmctld")
  _call("slurmd")
  time.sleep(3)


def _stop(folder: pathlib.Path) -> None:
  for name in ("slurmctld", "slurmd"):
    pid = folder / f"{name}.pid"
    if pid.exists():
      subprocess.run(["kill", pid.read_text().strip()])
  time.sleep(3)


def _submit(folder: pathlib.Path, log: pathlib.Path) -> str:
  options = ["--parsable", "--ntasks=2", "--cpus-per-task=1", f"--output={log}", f"--chdir={ROOT}"]
  words = [str(ROOT / "docs" / "slurm.sh"), "reproduce", *_FLAGS, f"--config.output={folder}"]
  return _call("sbatch", *options, *words)


def _state(job: str) -> str:
  return _call("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")


def _until(condition, what: str, job: str, limit: float = 1800.0) -> None:
  end = time.monotonic() + limit
  while not condition():
    if time.monotonic() > end or _state(job) in ("FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"):
      raise SystemExit(f"error: waited for {what}; the job is {_state(job)}")
    time.sleep(0.5)


def main() -> int:
  """0 where the run that was disturbed ended as the other one."""
  missing = [name for name in _PROGRAMS if not shutil.which(name)]
  if missing:
    raise SystemExit(f"error: no {', '.join(missing)}: apt-get install slurm-wlm munge")
  os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
  os.environ["XDG_CACHE_HOME"] = str(ROOT / ".cache")
  with tempfile.TemporaryDirectory() as place:
    base = pathlib.Path(place)
    _start(base)
    try:
      good = _submit(base / "good", base / "good.log")
      _until(lambda: _state(good) == "COMPLETED", "the end of the run left alone", good)
      _say("a run left alone has ended")
      job, log = _submit(base / "run", base / "run.log"), base / "run.log"
      parts = lambda: len(list((base / "run" / "hmc").glob("part-*.h5")))
      stops = lambda: log.read_text().count("error: stopped by a signal") if log.exists() else 0
      for number, words in enumerate((["scancel", "--signal=USR1", job], ["scontrol", "requeue", job]), 1):
        before = parts()
        _until(lambda: parts() > before + 1, "parts of HMC", job)
        _call(*words)
        _until(lambda: stops() >= 2 * number, "both tasks to stop", job)
        _say(f"{' '.join(words)}: stopped with {parts()} parts of HMC")
        if number == 2:
          # SLURM holds a job for two minutes that it has put back itself.
          _call("scontrol", "update", f"JobId={job}", "StartTime=now")
      _until(lambda: _state(job) == "COMPLETED", "the end of the other one", job)
      found = campaign.differences(base / "run", base / "good")
      _say(f"it was stopped {stops() // 2} times and has ended: {'; '.join(found) or 'equal'}")
      return int(bool(found))
    finally:
      _stop(base)


if __name__ == "__main__":
  sys.exit(main())
