#!/usr/bin/env bash
# Try the container without Apptainer or Docker: a fresh root of its Debian by mmdebstrap, the files and
# the commands of containers/imagenet.def, then `make demo` in it as an ordinary user, then two ranks in
# it by the mpirun of this checkout's .venv (or VENV).
#
#   tools/try_container.sh
#
# Needs root, mmdebstrap and 10 GB; takes about 6 minutes. The root stays (below $ROOTS, default
# /var/tmp/imagenet-roots) with its log, and is made anew by the next call. MIRROR: another mirror than
# the machine's own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/fresh_root.sh
source tools/fresh_root.sh

die() {
  printf 'try_container: %s\n' "$*" >&2
  exit 2
}

[[ $(id -u) == 0 ]] || die "a root of another system needs root: run it by sudo"
command -v mmdebstrap >/dev/null || die "no mmdebstrap: apt-get install mmdebstrap"
definition=containers/imagenet.def
suite=$(sed -n 's/^OSVersion: //p' "$definition")
root=${ROOTS:-/var/tmp/imagenet-roots}/container
log=$root.log

# section NAME: its lines, without their indent
section() { sed -n "/^%$1\$/,/^\(%\|#\|\$\)/s/^ \+//p" "$definition"; }

rm -rf --one-file-system "$root"
mkdir -p "$root"
printf '==> %s: %s from %s, its log beside it\n' "$suite" "$root" "${MIRROR:=$(debian_mirror)}"
began=$SECONDS
mmdebstrap --variant=minbase "$suite" "$root" "$MIRROR" >"$log" 2>&1 || die "no root of $suite: see $log"
section files | while read -r from to; do
  mkdir -p "$root$to"
  # shellcheck disable=SC2086 # it may be a pattern
  cp -rL $from "$root$to"
done
inside "$root" root "$(section post)" >>"$log" 2>&1 || {
  tail -n 25 "$log" >&2
  die "the container was not made: see $log"
}
built=$((SECONDS - began)) gigabytes=$(du -sx --block-size=1G "$root" | cut -f1)

chroot "$root" useradd --create-home --shell /bin/bash someone
began=$SECONDS
inside "$root" someone "$(section environment)
  cd /opt/imagenet && make demo ARGS='--output /home/someone/run'" >>"$log" 2>&1 || {
  tail -n 25 "$log" >&2
  die "make demo failed in the container: see $log"
}
demo=$((SECONDS - began))

apptainer=$(mktemp -d)
trap 'rm -rf "$apptainer"' EXIT
ln -s "$PWD/tools/chroot_apptainer.sh" "$apptainer/apptainer"
echo 'localhost slots=2' >"$apptainer/hosts"
PATH=$apptainer:$PATH CONTAINER=$root DATA=digits OUTPUT=$apptainer/run PREFLIGHT=0 OMPI_MCA_mpi_yield_when_idle=1 \
  slurm/mpirun_hosts.sh "$apptainer/hosts" --recipe demo --workers 2 --epochs 1 >>"$log" 2>&1 || {
  tail -n 25 "$log" >&2
  die "mpirun outside, ranks inside failed: see $log"
}
printf '%s: made in %s s, %s GB; make demo in %s s: %s; ranks of an mpirun outside: done\n' \
  "$suite" "$built" "$gigabytes" "$demo" "$(sed -n 's/.*<stdout>: done: //p' "$log" | head -n 1)"
