#!/usr/bin/env bash
# The paper's Figures 7 and 8: seconds of a step on 1, 2, 4, ... nodes, up to the whole allocation.
#
#   sbatch slurm/scaling.sh                          from the repository's root: 8 to 256 GPUs
#   sbatch --nodes=44 slurm/scaling.sh               up to 352 GPUs, as the paper
#   sbatch slurm/scaling.sh --batch-per-worker 128   the job's own settings come last
#   python -m hvd_utils.scaling --measured runs/scaling-JOBID/scaling.json --plot scaling.png
#
# Each number of nodes makes STEPS steps on made-up images and, where DATA is set, as many from data.
# With the same OUTPUT it goes on where it was stopped. Variables as in resnet50_256gpu.sh, and:
#SBATCH --job-name=scaling
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --signal=B:USR1@120
#SBATCH --output=%x-%j.out
set -euo pipefail

: "${STEPS:=200}"     # of each run
: "${LOG_EVERY:=20}"  # steps of a window; the first window is not counted
: "${RECIPE:=paper}"
: "${DATA:=${IMAGENET_DIR:-}}"
: "${OUTPUT:=runs/${SLURM_JOB_NAME:-scaling}-${SLURM_JOB_ID:-local}}"
: "${VENV:=}" "${MODULES:=}" "${NETWORK_INTERFACE:=}" "${CONTAINER:=}" "${LAUNCHER:=mpirun}"
: "${RANKS_PER_NODE:=${SLURM_NTASKS_PER_NODE:-8}}"

[[ -n ${SLURM_JOB_NUM_NODES:-} ]] || {
  echo "launch: error: this is a job of Slurm: submit it with sbatch" >&2
  exit 2
}
submitted=$(scontrol show job "${SLURM_JOB_ID:-0}" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p' | head -n 1 || true)
for REPO in "${REPO:-}" "${SLURM_SUBMIT_DIR:-}" "$(dirname "${submitted:-.}")/.."; do
  [[ ! -f $REPO/slurm/launch.sh ]] || break
done
[[ -f $REPO/slurm/launch.sh ]] || {
  echo "slurm/launch.sh is neither in ${SLURM_SUBMIT_DIR:-the submit folder} nor beside $submitted:" \
    "submit from the repository's root, or set REPO" >&2
  exit 2
}
REPO=$(realpath "$REPO")
# shellcheck source=slurm/launch.sh
source "$REPO/slurm/launch.sh"
prepare "$@"
logs=$OUTPUT/logs
make_output "$logs"
make_bound_folders
((code == 0)) || exit "$code"

# measure NODES KIND ARGUMENTS...: a run on so many nodes, unless it is done already.
measure() {
  local nodes=$1 run_folder ranks=$(($1 * RANKS_PER_NODE))
  run_folder=$OUTPUT/$2-$(printf %05d "$ranks")
  runs+=("$run_folder")
  grep -qs '"event": "end"' "$run_folder/metrics.jsonl" && return 0
  on_all=(-n "$ranks" --map-by "ppr:$RANKS_PER_NODE:node")
  [[ $LAUNCHER == mpirun ]] ||
    on_all=(--nodes="$nodes" --ntasks="$ranks" --ntasks-per-node="$RANKS_PER_NODE")
  logs=$run_folder/logs
  make_output "$logs"
  describe_output
  say "$2: $ranks processes on $nodes nodes"
  run "${mpi[@]}" "${on_all[@]}" "${output[@]}" "${rank[@]}" "${inside[@]}" \
    python train_imagenet.py --recipe "$RECIPE" --output "$run_folder" \
    --max-steps "$STEPS" --log-every "$LOG_EVERY" --keep-checkpoints 1 "${@:3}"
  [[ -z $told ]] || { say "OUTPUT=$OUTPUT with the same sbatch command goes on" && exit "$EXIT_RESUME"; }
  ((code == 0)) || exit "$code"
}

runs=()
for ((nodes = 1; ; nodes *= 2)); do
  ((nodes < SLURM_JOB_NUM_NODES)) || nodes=$SLURM_JOB_NUM_NODES
  measure "$nodes" synthetic --loader synthetic "$@"
  [[ -z $DATA ]] || measure "$nodes" data --data "$DATA" "$@"
  ((nodes < SLURM_JOB_NUM_NODES)) || break
done
"${inside[@]}" python -m hvd_utils.scaling.measured "${runs[@]}" --json "$OUTPUT/scaling.json"
say "draw it: python -m hvd_utils.scaling --measured $OUTPUT/scaling.json --plot scaling.png"
