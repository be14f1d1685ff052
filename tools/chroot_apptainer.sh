#!/usr/bin/env bash
# Stands for `apptainer exec [--nv] [--pwd DIR] [--bind DIR]... ROOT COMMAND...` in try_container.sh: a
# chroot with the folders bound, and /tmp, /dev, /proc and /sys of the host. Needs root.
set -euo pipefail
shift # exec
bound=(/tmp /dev /proc /sys)
folder=/
while [[ $1 == --* ]]; do
  case $1 in
    --nv) shift ;;
    --pwd) folder=$2 && shift 2 ;;
    --bind) bound+=("$2") && shift 2 ;;
    *) echo "no option $1 here" >&2 && exit 2 ;;
  esac
done
root=$1
shift
export VIRTUAL_ENV=/opt/imagenet/.venv PATH=/opt/imagenet/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin
# shellcheck disable=SC2016 # expanded by that bash
exec unshare --mount bash -c '
  root=$1 folder=$2 count=$3
  for each in "${@:4:count}"; do
    mkdir -p "$root$each" && mount --rbind "$each" "$root$each" || exit
  done
  exec chroot "$root" env --chdir "$folder" "${@:4+count}"
' chroot "$root" "$folder" "${#bound[@]}" "${bound[@]}" "$@"
