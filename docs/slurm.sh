#!/bin/sh
# A run under SLURM, which is stopped and started again until it is done: sbatch [options] docs/slurm.sh STAGE [--flag=value ...]
#SBATCH --job-name=flowqcd
#SBATCH --requeue
#SBATCH --open-mode=append
# Five minutes before the time is up: the training step or the part in flight has to fit into them.
#SBATCH --signal=USR1@300

srun flowqcd "$@" --coordinator=auto
status=$?
# 75: stopped by a signal, with everything stored. The same job goes on from there.
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
