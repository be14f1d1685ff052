"""The job on two hosts, and the cable between them cut: every process on both has to end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launching import JOB, PROGRAMS, REPOSITORY, TINY
from support.two_hosts import Hosts, two_hosts

from hvd_utils.run.checkpoint import list_checkpoints

pytestmark = pytest.mark.long

PROGRAM = str(PROGRAMS / "watched.py")

# Open MPI's daemons look after one another by TCP's keepalive, by default after 8 minutes.
QUICK_KEEPALIVE = {
    "PRTE_MCA_oob_tcp_keepalive_time": "3",
    "PRTE_MCA_oob_tcp_keepalive_intvl": "1",
    "PRTE_MCA_oob_tcp_keepalive_probes": "3",
}


@pytest.fixture
def hosts():
    with two_hosts() as pair:
        yield pair


def start_and_cut(hosts: Hosts, running: Path, command: list[str], **environment: str):
    """Start a job of two ranks a host and cut the cable once ``running`` exists."""
    job = hosts.start(2, command, PYTHONPATH=str(REPOSITORY), **environment)
    wait_until(running.exists, hosts)
    hosts.cut()
    return job


def wait_until(done: Callable[[], bool], hosts: Hosts, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, hosts.jobs()
        time.sleep(0.2)


def ranks(hosts: Hosts) -> int:
    """How many of the job's own processes there are, its launcher's left out."""
    return sum(name.startswith("python") for name in hosts.jobs().values())


def test_the_job_runs_on_two_hosts(hosts, tiny_data, tmp_path):
    command = [JOB, "--data", tiny_data, "--output", tmp_path, *TINY]
    ended = hosts.mpirun(1, [*map(str, command)])
    assert ended.code == 0, ended.output
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert facts["hosts"] == {hosts.first.name: 1, hosts.second.name: 1}


def test_with_the_cable_cut_the_job_ends_on_both_hosts(hosts, tiny_data, tmp_path):
    """mpirun itself waits until TCP gives up, about 15 minutes later, and is ended here."""
    options = (*TINY, "--epochs", "9000", "--stall-timeout", "5", "--output", tmp_path)
    command = [JOB, "--data", tiny_data, *options]
    job = start_and_cut(hosts, tmp_path / "checkpoints" / "best.pt", [*map(str, command)])
    assert ranks(hosts) == 4
    wait_until(lambda: ranks(hosts) == 0, hosts)
    hosts.end_jobs()
    ended = hosts.finish(job, timeout=60)
    (line,) = [line for line in ended.output.splitlines() if "error: " in line]
    assert "all ranks wait for one another: a network path may be cut" in line
    assert f"--output {tmp_path} goes on from the newest checkpoint" in line
    assert list_checkpoints(tmp_path)


def test_with_the_cable_cut_open_mpi_ends_all_if_its_keepalive_is_quicker(hosts, tmp_path):
    command = [PROGRAM, str(tmp_path), "400"]
    job = start_and_cut(hosts, tmp_path / "running", command, **QUICK_KEEPALIVE)
    ended = hosts.finish(job, timeout=240)
    assert "lost communication with a remote daemon" in ended.output
    wait_until(lambda: not hosts.jobs(), hosts)
