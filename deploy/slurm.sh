#!/bin/bash
# A run on two nodes of eight GPUs, one task a GPU. From the repository's folder, which lies, like the
# corpora and the run, on storage that all nodes share:
#
#   sbatch deploy/slurm.sh CONFIG --corpus corpora/big --run runs/big \
#       --mesh.data 2 --mesh.fsdp 8 --training.checkpoint-every 500
#
# Everything after the script's name goes to `isoflop train`; sbatch's own options (--nodes=4,
# --time=8:00:00) go before it and replace those below. The product of the mesh is the number of tasks.
#
# To begin from: not run on a cluster. What is decided by exit codes is tested (tests/test_deploy.py),
# and joining by SLURM's variables was tried on one machine. docs/reliability.md has the numbers to set.

#SBATCH --job-name=isoflop
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
# Of the node, not --gpus-per-task: JAX takes the GPU of SLURM_LOCALID, so a task has to see all eight.
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# To the tasks, so many seconds ahead of the time limit: longer than a stop takes.
#SBATCH --signal=TERM@300
# After a lost node or a preemption SLURM starts the job again; the rest is below.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=isoflop-%j.log

restarts=10        # failures to start again after
healthy=600        # seconds after which a start counts as healthy: failures are counted anew
pause=10           # seconds before another start
isoflop=${ISOFLOP:-.venv-cuda/bin/isoflop}

failures=0
while true; do
    begun=$SECONDS
    # A task that has ended waits 120 s for the others: all leave together, or what hangs is killed.
    srun --kill-on-bad-exit=0 --wait=120 "$isoflop" train "$@" --resume --distributed
    status=$?
    case $status in
        0) exit 0 ;;
        1 | 2) exit "$status" ;;  # failed, or bad input: for a person to look at
        143)                      # told to stop, and saved: again when there is room
            scontrol requeue "$SLURM_JOB_ID"
            exit "$status"
            ;;
    esac
    # 42, 134, killed: a hang, a lost peer, silent corruption. All tasks again, on the same nodes.
    if ((SECONDS - begun >= healthy)); then failures=0; fi
    failures=$((failures + 1))
    if ((failures > restarts)); then
        echo "slurm.sh: giving up after $restarts restarts; the last start ended with $status" >&2
        exit 1
    fi
    echo "slurm.sh: ended with $status; restart $failures of $restarts in $pause s" >&2
    sleep "$pause"
done
