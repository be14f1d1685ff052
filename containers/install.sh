#!/usr/bin/env bash
# Makes a bare Debian with the project in /opt/imagenet into its container, as root. imagenet.def,
# Dockerfile and tools/try_container.sh all call it, so that they make the same.
# What `make setup` takes from the environment counts here too.
set -euo pipefail
cd /opt/imagenet

packages=(python3 python3-venv python3-dev g++ make ca-certificates procps)
packages+=(openssh-client openssh-server) # for mpirun between the pods of Kubernetes

export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # installing sshd must not start it
chmod +x /usr/sbin/policy-rc.d
apt-get update
apt-get install -y --no-install-recommends "${packages[@]}"
rm -rf /var/lib/apt/lists/*

# Pods are made anew each time: they get host keys when they start, which nobody can know before. The
# operator mounts the users' keys as files of another owner, at which sshd would balk.
rm -f /etc/ssh/ssh_host_*
mkdir -p /run/sshd
echo 'StrictModes no' >/etc/ssh/sshd_config.d/imagenet.conf
cat >/etc/ssh/ssh_config.d/imagenet.conf <<'SSH'
Host *
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
SSH

export CUDA=${CUDA:-13} # for the nodes' GPUs: here is none that would tell
make setup
# Users cannot write here, so what the demo would write is made now.
.venv/bin/python -c 'from dali_pipeline.dataset import digits, open_data as data; digits.ensure_digits(data.EMBEDDED)'
rm -rf .setup/horovod
chmod -R a+rX .
