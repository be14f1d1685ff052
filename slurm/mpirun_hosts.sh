#!/usr/bin/env bash
# The same job on a cluster without Slurm, by mpirun and ssh.
#
#   DATA=/data/imagenet OUTPUT=/shared/runs/hour slurm/mpirun_hosts.sh HOSTFILE --workers 256
#
# HOSTFILE has a line `node01 slots=8` for each host; ssh has to get to each without a password.
# Code, .venv, data and output are at the same path on every host. Variables as in
# resnet50_256gpu.sh. If the job fails or loses a host it is started again, at most MAX_FAILURES
# times in a row without progress (0: never). Ctrl-C, SIGTERM and SIGUSR1 save and end it with
# code 75; the same command goes on.
set -euo pipefail

(($# > 0)) || {
  echo "usage: $0 HOSTFILE [the job's own arguments]" >&2
  exit 2
}
HOSTFILE=$1
shift
[[ -f $HOSTFILE ]] || {
  echo "no host file $HOSTFILE: give one with a line 'node01 slots=8' for each host" >&2
  exit 2
}
: "${DATA:=${IMAGENET_DIR:-}}"
: "${OUTPUT:?set it to the folder of the run: a restart goes on there}"

REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
# shellcheck source=slurm/launch.sh
source "$REPO/slurm/launch.sh"
launch "$@"
