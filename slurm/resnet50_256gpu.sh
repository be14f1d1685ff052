#!/usr/bin/env bash
# The paper's run on 32 nodes of 8 GPUs: 256 workers of 32 images, kn = 8,192, 90 epochs.
#
#   sbatch slurm/resnet50_256gpu.sh                  from the repository's root
#   sbatch --nodes=4 slurm/resnet50_256gpu.sh        the same 256 workers, on 32 GPUs
#   sbatch slurm/resnet50_256gpu.sh --epochs 100     the job's own settings come last
#   sbatch slurm/resnet50_256gpu.sh --recipe lars-32k   a recipe with its own number of workers
#   scancel --batch --signal=USR1 JOBID              save now and requeue; scancel JOBID ends it
#
# Before the time limit the job saves, requeues itself and goes on, until it is done; so any limit
# will do, and without --time the partition's is taken. On preemption it goes on from the newest
# checkpoint, or from a fresh one if your site sets preempt_send_user_signal.
#SBATCH --job-name=resnet50_256gpu
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=%x-%j.out
set -euo pipefail

# What a site changes: here, or in the environment, as `DATA=/data/imagenet sbatch ...`.
: "${DATA:=${IMAGENET_DIR:-}}"    # the data set's folder, the same path on all nodes
: "${OUTPUT:=runs/${SLURM_JOB_NAME:-resnet50_256gpu}-${SLURM_JOB_ID:-local}}" # on storage that all share
: "${VENV:=}"                     # the virtual environment (default: the active one, or .venv)
: "${MODULES:=}"                  # for `module load`, as "cuda/13.0 openmpi/5.0"
: "${RANKS_PER_NODE:=${SLURM_NTASKS_PER_NODE:-8}}" # one a GPU; follows sbatch --ntasks-per-node
: "${NETWORK_INTERFACE:=}"        # as eth0, for NCCL and MPI (default: all but lo and docker0)
: "${STAGE_TO:=}"                 # copy the data to this local folder of every node first
: "${PREFLIGHT:=1}"               # 0: do not check nodes, links and data before training
: "${PREFLIGHT_ARGS:=}"           # its own options, as "--time-limit 300 --skip input"
: "${MAX_FAILURES:=3}"            # restarts in a row without a new checkpoint, before it gives up
: "${CONTAINER:=}"                # an image of containers/imagenet.def that brings Python and the rest
: "${LAUNCHER:=mpirun}"           # or srun, where Slurm has its PMIx plugin
: "${JOB:=train_imagenet.py}"     # the program, which has to write the same log

# sbatch runs a copy of this script, elsewhere: the repository is where it was submitted from, or
# where the script itself lies.
here=$(dirname "${BASH_SOURCE[0]}")
submitted=$(scontrol show job "${SLURM_JOB_ID:-0}" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | head -n 1 || true)
for REPO in "${REPO:-}" "${SLURM_SUBMIT_DIR:-}" "$here/.." "$(dirname "${submitted:-.}")/.."; do
  [[ ! -f $REPO/slurm/launch.sh ]] || break
done
[[ -f $REPO/slurm/launch.sh ]] || {
  echo "slurm/launch.sh is neither in ${SLURM_SUBMIT_DIR:-the submit folder} nor beside ${submitted:-$0}:" \
    "submit from the repository's root, or set REPO" >&2
  exit 2
}
REPO=$(realpath "$REPO")
# shellcheck source=slurm/launch.sh
source "$REPO/slurm/launch.sh"
[[ -n ${SLURM_JOB_ID:-} ]] ||
  die "this is a job of Slurm: submit it with sbatch (without Slurm: slurm/mpirun_hosts.sh)"
workers=(--workers 256) # the paper's k; a recipe that is named has its own, or one worker a process
[[ " $*" != *' --recipe'[\ =]* ]] || workers=()
launch "${workers[@]}" "$@"
