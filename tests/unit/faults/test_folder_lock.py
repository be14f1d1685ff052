"""Two jobs never share a folder, and a dead one does not block it."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.launching import REPOSITORY

from hvd_utils.cli.errors import BadInput
from hvd_utils.faults import folder_lock
from hvd_utils.faults.folder_lock import FolderLock, locks_on_one_host_only


@contextlib.contextmanager
def another_job(folder):
    """Yield another process that holds the lock of ``folder``; end it if it still runs."""
    program = f"""
import sys
from pathlib import Path
from hvd_utils.faults.folder_lock import FolderLock
lock = FolderLock(Path({str(folder)!r}))
print(lock.acquire(), flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    job = subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY
    )
    with job:
        try:
            assert job.stdout.readline() == "None\n"
            yield job
        finally:
            job.kill()


def test_a_folder_in_use_names_its_user(tmp_path):
    with another_job(tmp_path) as job:
        began = time.monotonic()
        with pytest.raises(BadInput) as caught:
            FolderLock(tmp_path).acquire(patience_seconds=0.3)
        assert time.monotonic() - began >= 0.3
        text = str(caught.value)
        assert text.startswith(f"{tmp_path} is in use by a job on {socket.gethostname()}, pid ")
        assert f"pid {job.pid}, started {time.strftime('%Y-')}" in text
        assert text.endswith(": wait for it, end it, or choose another --output")


def test_the_successor_of_a_killed_job_goes_on(tmp_path):
    with another_job(tmp_path) as job:
        job.send_signal(signal.SIGKILL)
        job.wait()
        lock = FolderLock(tmp_path)
        assert lock.acquire(patience_seconds=0) is None
        with pytest.raises(BadInput, match=f"pid {os.getpid()}, "):
            FolderLock(tmp_path).acquire(patience_seconds=0)
        lock.release()


def test_a_job_that_is_about_to_end_is_waited_for(tmp_path):
    with another_job(tmp_path) as job:
        threading.Timer(0.5, job.kill).start()
        lock = FolderLock(tmp_path)
        lock.acquire(patience_seconds=30)
        lock.release()


def test_a_released_folder_is_free_while_its_job_still_runs(tmp_path):
    with another_job(tmp_path) as job:
        job.stdin.write("\n")
        job.stdin.flush()
        assert job.stdout.readline() == "released\n"
        FolderLock(tmp_path).acquire(patience_seconds=0)
        assert job.poll() is None


def test_a_refused_job_leaves_the_lock_and_its_holder_alone(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    for _ in range(2):
        with pytest.raises(BadInput, match=f"pid {os.getpid()}, "):
            FolderLock(tmp_path).acquire(patience_seconds=0)
    lock.release()
    lock.release()  # once more does no harm
    FolderLock(tmp_path).acquire(patience_seconds=0)


def test_programs_that_a_job_starts_do_not_hold_its_folder(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            lock.release()
            FolderLock(tmp_path).acquire(patience_seconds=0)
        finally:
            child.kill()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_it_goes_on_with_a_warning(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = FolderLock(tmp_path)
    assert lock.acquire().startswith(f"warning: the file system of {tmp_path} has no locks")
    lock.release()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(BadInput, match="cannot lock .*lock: Is a directory"):
        FolderLock(tmp_path).acquire()


MOUNTS = """\
22 1 0:20 / / rw - ext4 /dev/vda rw
30 22 0:40 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2,local_lock=none
31 22 0:41 / /scratch rw,relatime - nfs server:/scratch rw,vers=3,nolock,local_lock=all
32 31 0:42 / /scratch/own\\040disk rw - xfs /dev/vdb rw
33 22 0:43 / /mnt/flock rw - nfs server:/x rw,vers=3,local_lock=flock
broken
"""


@pytest.mark.parametrize(
    ("folder", "alone"),
    [
        ("/run", False),
        ("/home/me/run", False),
        ("/scratch/me/run", True),
        ("/scratch/own disk/run", False),
        ("/scratchy/run", False),
        ("/mnt/flock", True),
    ],
)
def test_nfs_without_locks_between_hosts_is_known(folder, alone):
    assert locks_on_one_host_only(Path(folder), MOUNTS) is alone
    assert not locks_on_one_host_only(Path(folder), "")


def test_the_users_of_such_a_folder_are_warned(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "_mounts", lambda: "1 0 0:1 / / rw - nfs host:/ rw,nolock")
    folder = FolderLock(tmp_path)
    assert "no job on another host" in folder.acquire()
    folder.release()
