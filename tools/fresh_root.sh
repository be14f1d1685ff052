# shellcheck shell=bash
# A fresh root of a Debian and commands in it, for the scripts that source this file.

# Of the machine's package sources, the first that has Debian itself.
debian_mirror() {
  local mirror
  # shellcheck disable=SC2016 # apt-get's own
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    grep -v security | head -n 1 || true)
  printf '%s\n' "${mirror:-http://deb.debian.org/debian}"
}

# inside ROOT USER COMMAND: run it there, in the user's home. Mounts and processes are gone when it
# ends. The names of hosts and the certificates are those of this machine, a company's own among them;
# the folder that $cache names, if any, is pip's cache.
inside() {
  local root=$1 home
  home=$(chroot "$root" getent passwd "$2" | cut -d: -f6)
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/machine-certificates.crt"
  # shellcheck disable=SC2016 # expanded by that bash
  unshare --mount --pid --fork --kill-child bash -c '
    set -euo pipefail
    root=$1 user=$2 command=$3 home=$4 cache=$5
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount --rbind /sys "$root/sys"
    [[ -z $cache ]] || mount --bind "$cache" "$root$home/.cache/pip"
    exec chroot "$root" /usr/bin/env -i HOME="$home" USER="$user" LOGNAME="$user" \
      LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin PIP_CERT=/etc/machine-certificates.crt \
      ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} ${http_proxy:+http_proxy="$http_proxy"} \
      ${https_proxy:+https_proxy="$https_proxy"} PIP_DEFAULT_TIMEOUT=180 \
      setpriv --reuid "$user" --regid "$user" --init-groups bash -c "cd ~ && $command"
  ' inside "$root" "$2" "$3" "$home" "${cache:-}"
}
