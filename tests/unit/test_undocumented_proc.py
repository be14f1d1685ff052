"""What the project reads from Linux's ``/proc``: each file is there, and as its reader takes it.

Beside ``test_undocumented``, which names what is used of other libraries.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import choose_cuda
import pytest
from support.launching import REPOSITORY

from dali_pipeline.benchmarking.index.growth import private_megabytes
from dali_pipeline.benchmarking.measure import machine
from hvd_utils.faults.folder_lock import _mounts, locks_on_one_host_only
from hvd_utils.horovod_backend import node
from hvd_utils.horovod_backend.elastic import _open_sockets
from hvd_utils.preflight.checks import software

READ = {
    "proc/cpuinfo",
    "proc/driver/nvidia/version",
    "proc/self/fd",
    "proc/self/fd/PID",
    "proc/PID/fd/1",
    "proc/PID/stat",
    "proc/self/mountinfo",
    "proc/self/status",
    "proc/self/task",
}


def test_every_file_that_is_read_has_a_test_here():
    found = set()
    for folder in ("hvd_utils", "dali_pipeline", "tools"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            names = re.finditer(r"\bproc/(\{[^}]*\}|[\w/])+", path.read_text())
            found |= {re.sub(r"\{[^}]*\}", "PID", name[0]) for name in names}
    assert found == READ


def test_mountinfo_names_the_place_then_the_kind_and_its_options():
    """``folder_lock``: field 5 is the place; after `` - `` come kind, source and options."""
    lines = _mounts().splitlines()
    assert "/proc" in [line.split(" - ")[0].split()[4] for line in lines]
    assert all(len(line.split(" - ")[1].split()) >= 3 for line in lines)
    nfs = "36 35 98:0 / / rw,noatime shared:1 - nfs4 server:/home rw,vers=4.2,local_lock=all\n"
    assert locks_on_one_host_only(Path("/home"), nfs)


def test_stat_has_the_state_after_the_name_in_parentheses():
    """``preflight.start``: a process that is stopped or ended is not one that starts."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stat = Path(f"/proc/{child.pid}/stat")

    def state() -> str:
        return stat.read_text().rpartition(")")[2].split()[0]

    child.stdin.write(b"runs\n")
    child.stdin.flush()
    child.stdout.readline()
    assert state() not in "TtDZX"
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet fetched
    assert state() == "Z"
    child.wait()


def test_a_descriptor_tells_of_its_socket_and_of_its_terminal():
    """``elastic``: socket:[inode]; ``progress_bar``: /dev/pts/N."""
    before = _open_sockets()
    with socket.socket() as new:
        assert set(_open_sockets().items()) - set(before.items()) == {
            (os.readlink(f"/proc/self/fd/{new.fileno()}"), new.fileno())
        }
    ours, theirs = os.openpty()
    try:
        assert os.readlink(f"/proc/self/fd/{theirs}") == os.ttyname(theirs)
        assert os.ttyname(theirs).startswith("/dev/pts/")
        beside = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=theirs)
        assert os.readlink(f"/proc/{beside.pid}/fd/1") == os.ttyname(theirs)
        beside.communicate(timeout=120)
    finally:
        os.close(ours)
        os.close(theirs)


def test_task_names_every_thread():
    """``affinity``: by the id that sched_setaffinity takes."""
    assert str(threading.get_native_id()) in os.listdir("/proc/self/task")
    assert os.sched_getaffinity(threading.get_native_id())


def test_status_and_cpuinfo_tell_what_the_benchmarks_write():
    """``growth``: RssAnon in kB; ``measure``: the processor's name, where there is one."""
    assert private_megabytes() > 1
    assert re.match(r"\d+ cores of \S", machine())


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build\n",
    ],
)
def test_the_driver_tells_its_version(tmp_path, monkeypatch, text):
    """NVIDIA's own driver and its open one; ``choose_cuda``, ``software`` and ``node``."""
    told = tmp_path / "proc/driver/nvidia/version"
    told.parent.mkdir(parents=True)
    told.write_text(text + "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n")
    monkeypatch.setattr(software, "DRIVER", told)
    assert choose_cuda.driver_version(tmp_path) == "535.104.05"
    assert software.driver_version() == "535.104.05"
    assert node.unused_gpu(tmp_path, {}) == "driver 535.104.05"
