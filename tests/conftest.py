"""What all tests share."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.images import write_jpegs

# Threads of OpenMP that spin while they wait take the cores from those they wait for: on busy
# cores a job takes seven times as long. Read when PyTorch is loaded, here and in what tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")  # likewise the ranks of MPI
# Several tests run at a time: more threads would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["support.failures", "support.by_file", "support.side_by_side"]


@pytest.fixture(autouse=True)
def own_place_for_mpirun(monkeypatch) -> Iterator[None]:
    """Give each test a folder for what mpirun leaves when it is killed.

    In the common one, an mpirun that happens to get the process id of a dead one does not start
    ("The PMIx server's listener thread failed to start").
    """
    with tempfile.TemporaryDirectory(prefix="mpirun-", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("PRTE_MCA_prte_tmpdir_base", folder)
        yield


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """Three classes, 30 training images, 7 validation images: more ranks than some shards hold."""
    root = tmp_path_factory.mktemp("tiny")
    write_jpegs(root / "train", {"ant": 8, "bee": 12, "cat": 10}, seed=1)
    write_jpegs(root / "val", {"ant": 2, "bee": 3, "cat": 2}, seed=2)
    return root


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of the size given, as ``1100k``, and returns its folder."""
    mounts = []

    def mount(size: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting a small file system needs root")
        disk = tmp_path / f"disk of {size}"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
        if subprocess.run(command).returncode != 0:
            pytest.skip("this machine does not allow mounts")
        mounts.append(disk)
        return disk

    yield mount
    for disk in mounts:
        limit = time.monotonic() + 20
        # A process that was killed closes its files a moment after it is gone from every list.
        while subprocess.run(["umount", disk]).returncode != 0:
            assert time.monotonic() < limit
            time.sleep(0.2)


def pytest_collection_modifyitems(items) -> None:
    """Skip tests marked ``gpu`` where there is none."""
    import torch

    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
