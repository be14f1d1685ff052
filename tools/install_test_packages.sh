#!/usr/bin/env bash
# Install what some tests need beside .venv: two hosts on one machine want ip and sshd, the launch
# scripts a Slurm with PMIx (none is started, and none that is there is touched) and shellcheck, shell
# completion a zsh, and the report a browser (95 MB, 20 s; where the distribution has no such package,
# its tests are skipped).
# For test machines that are Debian or Ubuntu. Does nothing, quietly, where all is there; without
# root it says what is missing, and the tests that need it are skipped.
set -euo pipefail

export PATH=$PATH:/usr/sbin:/sbin # where Debian keeps both, off a user's PATH

missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v sshd >/dev/null || missing+=(openssh-server)
command -v ssh >/dev/null || missing+=(openssh-client)
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null ||
  missing+=(slurm-wlm)
command -v munged >/dev/null || missing+=(munge)
dpkg -s libpmix-dev >/dev/null 2>&1 || missing+=(libpmix-dev) # Debian's Slurm wants its link
command -v zsh >/dev/null || missing+=(zsh)
command -v shellcheck >/dev/null || missing+=(shellcheck)
browser=
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && browser=$name
done
[[ $browser ]] || missing+=(chromium-headless-shell)
((${#missing[@]})) || exit 0

if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "not installed: ${missing[*]} (needs root and apt-get); the tests that need them are skipped"
  exit 0
fi

# Debian starts a new sshd on port 22 at once; the tests start their own, so no service is wanted.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi

log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# Ubuntu has its browsers as snaps alone.
{
  apt-get update && { [[ $browser ]] || apt-cache show chromium-headless-shell ||
    unset "missing[-1]"; } &&
    { ! ((${#missing[@]})) || apt-get install -y --no-install-recommends "${missing[@]}"; }
} >"$log" 2>&1 || {
  tail -n 15 "$log" >&2
  echo "could not install ${missing[*]} (full log: $log)" >&2
  exit 1
}
rm -f "$log"
