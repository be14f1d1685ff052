#!/usr/bin/env bash
# The same job on a cluster without Slurm, by mpirun and ssh.
#
#   export DATA=/data/imagenet OUTPUT=/shared/runs/hour
#   slurm/mpirun_hosts.sh HOSTFILE --workers 256
#   slurm/mpirun_hosts.sh --workers 256             in a job of PBS or LSF: on its hosts
#
# HOSTFILE has a line `node01 slots=8` for each host; ssh has to get to each without a password.
# Code, .venv, data and output are at the same path on every host. Variables as in
# resnet50_256gpu.sh. If the job fails or loses a host it is started again, at most MAX_FAILURES
# times in a row without progress (0: never). Ctrl-C, SIGTERM and SIGUSR1 save and end it with
# code 75; the same command goes on.
set -euo pipefail

REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
# shellcheck source=slurm/launch.sh
source "$REPO/slurm/launch.sh"

# Makes a host file of the slots that PBS or LSF gave to this job: $1 prints a line HOST for each.
make_host_file() {
  local slots rest i host count hosts=() counts=()
  slots=$("$1") || die "cannot read the hosts of this job of $scheduler: give a HOSTFILE"
  while read -r host count; do
    hosts+=("$host") counts+=("$count")
  done < <(awk 'NF && !n[$1]++ { order[++k] = $1 } END { for (i = 1; i <= k; i++) print order[i], n[order[i]] }' <<<"$slots")
  ((${#hosts[@]})) || die "$scheduler gave no hosts to this job: give a HOSTFILE"
  # Some sites of LSF put a host to launch from before the others, with a single slot.
  rest=$(printf '%s\n' "${counts[@]:1}" | sort -u)
  if [[ $scheduler == LSF && ${counts[0]} == 1 && $rest =~ ^[0-9]+$ && $rest != 1 ]]; then
    say "no ranks on ${hosts[0]}: it has one slot where the others have $rest, as LSF's launch host has"
    unset 'hosts[0]' 'counts[0]'
  fi
  for i in "${!hosts[@]}"; do
    echo "${hosts[i]} slots=${RANKS_PER_NODE:-${counts[i]}}"
  done >"$HOSTFILE"
  say "${#hosts[@]} hosts of $scheduler, ranks each: $(sed 's/.*slots=//' "$HOSTFILE" | sort -nu | paste -sd ' ')"
}

pbs_slots() { cat "$PBS_NODEFILE"; }
lsf_slots() {
  if [[ -n ${LSB_DJOB_HOSTFILE:-} ]]; then
    cat "$LSB_DJOB_HOSTFILE"
  else # HOST SLOTS HOST SLOTS ...
    awk '{ for (i = 1; i < NF; i += 2) for (j = 0; j < $(i + 1); j++) print $i }' <<<"$LSB_MCPU_HOSTS"
  fi
}

scheduler=
if (($# > 0)) && [[ $1 != -* ]]; then
  HOSTFILE=$1
  shift
  [[ -f $HOSTFILE ]] || die "no host file $HOSTFILE: give one with a line 'node01 slots=8' for each host"
elif [[ -n ${PBS_NODEFILE:-} ]]; then
  scheduler=PBS
elif [[ -n ${LSB_DJOB_HOSTFILE:-}${LSB_MCPU_HOSTS:-} ]]; then
  scheduler=LSF
else
  echo "usage: $0 HOSTFILE [the job's own arguments]; without HOSTFILE in a job of PBS or LSF" >&2
  exit 2
fi
: "${DATA:=${IMAGENET_DIR:-}}"
[[ -n ${OUTPUT:-} ]] || die "OUTPUT is not set: set it to the folder of the run, where a restart goes on"
if [[ -n $scheduler ]]; then
  make_output "$OUTPUT/logs"
  HOSTFILE=$OUTPUT/logs/hosts
  make_host_file "${scheduler,,}_slots"
fi
launch "$@"
