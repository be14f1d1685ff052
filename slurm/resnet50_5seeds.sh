#!/usr/bin/env bash
# The paper's protocol: the run of resnet50_256gpu.sh five times, with seeds 1 to 5.
#
#   sbatch slurm/resnet50_5seeds.sh                  from the repository's root
#   sbatch --array=1-5%1 --nodes=4 ...               one after the other, on 32 GPUs
#
# Each has its own output folder, requeues and limits as there, and takes the same variables, but
# that OUTPUT is the folder of all five. Mean and standard deviation afterwards:
#   python -m hvd_utils.final runs/resnet50_5seeds-JOBID/seed-*
#SBATCH --job-name=resnet50_5seeds
#SBATCH --array=1-5
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
#SBATCH --output=%x-%A_%a.out
set -euo pipefail
[[ -n ${SLURM_ARRAY_TASK_ID:-} ]] || {
  echo "launch: error: this is a job array of Slurm: submit it with sbatch" >&2
  exit 2
}

OUTPUT=${OUTPUT:-runs/$SLURM_JOB_NAME-$SLURM_ARRAY_JOB_ID}/seed-$SLURM_ARRAY_TASK_ID
submitted=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | head -n 1 || true)
for REPO in "${REPO:-}" "${SLURM_SUBMIT_DIR:-}" "$(dirname "${submitted:-.}")/.."; do
  [[ ! -f $REPO/slurm/launch.sh ]] || break
done
[[ -f $REPO/slurm/launch.sh ]] || {
  echo "slurm/launch.sh is neither in $SLURM_SUBMIT_DIR nor beside $submitted:" \
    "submit from the repository's root, or set REPO" >&2
  exit 2
}
# shellcheck source=slurm/resnet50_256gpu.sh
source "$REPO/slurm/resnet50_256gpu.sh" --seed "$SLURM_ARRAY_TASK_ID" "$@"
