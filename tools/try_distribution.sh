#!/usr/bin/env bash
# Try the project on another Debian or Ubuntu: a fresh root, an ordinary user, `make demo`, `make check`.
#
#   tools/try_distribution.sh SUITE [MPI]    SUITE: bookworm, trixie, testing, ... of Debian;
#                                            jammy, noble, questing or resolute of Ubuntu
#                                            MPI: wheel (default), openmpi or mpich (the suite's)
#
# Needs root, debootstrap and 15 GB; for Ubuntu also its keys (Debian 13's package ubuntu-keyring). The
# last line it prints is a row of the README's table. The log stays (below $ROOTS, default
# /var/tmp/imagenet-roots), and so does a root in which something failed. Environment: MIRROR (default:
# the machine's own of Debian, archive.ubuntu.com of Ubuntu), ROOTS, CHECK=0 leaves `make check` out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/fresh_root.sh
source tools/fresh_root.sh

die() {
  printf 'try_distribution: %s\n' "$*" >&2
  exit 2
}

suite=${1:?usage: tools/try_distribution.sh SUITE [wheel|openmpi|mpich]}
mpi=${2:-wheel}
case $mpi in
  wheel) mpi_packages= ;;
  openmpi) mpi_packages='libopenmpi-dev openmpi-bin' ;;
  mpich) mpi_packages='libmpich-dev mpich' ;;
  *) die "no MPI $mpi: give wheel, openmpi or mpich" ;;
esac
[[ $(id -u) == 0 ]] || die "a root of another system needs root: run it by sudo"
command -v debootstrap >/dev/null || die "no debootstrap: apt-get install debootstrap"

case $suite in
  jammy | noble | questing | resolute)
    mirror=${MIRROR:-http://archive.ubuntu.com/ubuntu}
    keys=/usr/share/keyrings/ubuntu-archive-keyring.gpg
    [[ -f $keys ]] || die "no $keys: apt-get install ubuntu-keyring, or on Debian 12 the .deb of Debian 13"
    options=("--components=main,universe" "--keyring=$keys") # python3-venv is in universe
    script=/usr/share/debootstrap/scripts/gutsy            # of every Ubuntu; older debootstraps lack the new names
    ;;
  *)
    mirror=${MIRROR:-$(debian_mirror)}
    options=()
    script=/usr/share/debootstrap/scripts/sid
    ;;
esac
roots=${ROOTS:-/var/tmp/imagenet-roots}
root=$roots/$suite-$mpi
cache=$roots/pip-cache # wheels are downloaded once for all roots
home=$root/home/someone
packages=python3,python3-venv,python3-dev,g++,make,ca-certificates,git,procps

printf '==> %s with MPI %s: %s from %s\n' "$suite" "$mpi" "$root" "$mirror"
rm -rf --one-file-system "$root"
mkdir -p "$root" "$cache"
debootstrap --variant=minbase --include="$packages" "${options[@]}" "$suite" "$root" "$mirror" "$script" \
  >"$roots/$suite-$mpi.debootstrap.log" 2>&1 ||
  die "no root of $suite: see $roots/$suite-$mpi.debootstrap.log"
if [[ $mpi_packages ]]; then # by apt-get: debootstrap does not choose among what can stand for a package
  cache='' inside "$root" root "export PATH=\$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends $mpi_packages" >>"$roots/$suite-$mpi.debootstrap.log" 2>&1 ||
    die "no $mpi in $suite: see $roots/$suite-$mpi.debootstrap.log"
fi
chroot "$root" useradd --create-home --shell /bin/bash someone
mkdir -p "$home/imagenet" "$home/.cache/pip"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp -d --parents -t "$home/imagenet"
owner=$(chroot "$root" id -u someone):$(chroot "$root" id -g someone)
chown -R "$owner" "$home" "$cache"

# Run a command in the root as the user, in the checkout.
as_someone() { inside "$root" someone "cd imagenet && $1"; }

# shellcheck disable=SC2016 # expanded in the root
facts() {
  as_someone '. /etc/os-release; printf "%s | GCC %s | %s | " "${PRETTY_NAME}" "$(g++ -dumpfullversion)" \
    "$(python3 -c "import platform; print(platform.python_version())")"'
  as_someone 'source .venv/bin/activate 2>/dev/null; mpirun --version 2>/dev/null | head -n 2 |
    grep -oE "(Open MPI\)?|HYDRA|Version:) *[0-9.]+" | tr -d ")" | sed "s/Version: */MPICH /" | head -n 1' ||
    printf 'none\n'
}

log=$roots/$suite-$mpi.log
began=$SECONDS
code=0
as_someone 'make demo' >"$log" 2>&1 || code=$?
seconds=$((SECONDS - began))
error=$(grep -aoE 'done: median top-1 error.*: [0-9.]+ %' "$log" | grep -oE '[0-9.]+ %' | tail -n 1 || true)
if ((code != 0)) || [[ -z $error ]]; then
  tail -n 25 "$log" >&2
  printf '| %s | %s s | make demo failed, code %s: %s |\n' "$(facts)" "$seconds" "$code" "$log"
  exit 1
fi
tests='not run'
if [[ ${CHECK:-1} != 0 ]]; then
  as_someone 'make check' >>"$log" 2>&1 || code=$?
  tests=$(grep -aoE '[0-9]+ (passed|failed|error)[^=]*' "$log" | tail -n 1 | sed 's/ in [0-9].*//')
fi
printf '| %s | %s s | %s | %s |\n' "$(facts)" "$seconds" "$error" "$tests"
((code != 0)) || rm -rf --one-file-system "$root"
exit "$code"
