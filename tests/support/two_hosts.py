"""Two hosts on one machine: network namespaces with a hostname and an sshd each, and a cable.

They share the file system, as the nodes of a cluster share the run's folder. Needs root, ip and
sshd (tools/install_test_packages.sh); where one is missing, the test is skipped.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from support.failures import note_launch
from support.launching import Finished

NETWORK = "10.77.0.0/24"  # the same for every pair: nobody else is on their cable
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # Debian keeps ip and sshd off users' PATH
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "OMPI_MCA_mpi_yield_when_idle")


@dataclass(frozen=True)
class Host:
    """One of the two: its name, which is its namespace's too, its address and its cable's end."""

    name: str
    address: str
    link: str

    def run(self, *command: str) -> list[str]:
        """Return ``command`` as this host runs it."""
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name)
        return ["ip", "netns", "exec", self.name, *named, *command]


class Hosts:
    """The two hosts and what runs on them; made by ``two_hosts``."""

    def __init__(self, first: Host, second: Host, folder: Path) -> None:
        self.first, self.second, self._folder = first, second, folder

    def cut(self) -> None:
        """Take the link between the hosts down: what is sent is lost, and no one is told."""
        _ip("link", "set", self.first.link, "down", host=self.first)

    def mend(self) -> None:
        """Bring the link up again."""
        _ip("link", "set", self.first.link, "up", host=self.first)

    def start(
        self, ranks_per_host: int, command: list[str], **environment: str
    ) -> subprocess.Popen:
        """Start ``python command`` under mpirun, from the first host; return its process."""
        file = self._folder / "hosts"
        both = (self.first, self.second)
        file.write_text("".join(f"{host.address} slots={ranks_per_host}\n" for host in both))
        variables = {"OMPI_MCA_mpi_yield_when_idle": "1", **os.environ, "PATH": PATH}
        variables = {k: v for k, v in variables.items() if k != "IMAGENET_DIR"} | environment
        passed_on = [name for name in (*PASSED_ON, *environment) if name in variables]
        whole = self.first.run(
            *(shutil.which("mpirun"), "-np", str(2 * ranks_per_host), "--hostfile", str(file)),
            *("--prtemca", "plm_ssh_args", f"-F {self._folder / 'ssh_config'}"),
            *("--prtemca", "prte_if_include", NETWORK),
            *("--mca", "btl_tcp_if_include", NETWORK, "--bind-to", "none"),
            *(part for name in passed_on for part in ("-x", name)),
            *(sys.executable, *command),
        )
        note_launch(whole)
        return subprocess.Popen(
            whole,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=variables,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen, timeout: float) -> Finished:
        """Wait for what ``start`` returned; end all that runs on both hosts if it takes longer."""
        began = time.monotonic()
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            left = list(self.jobs().values())
            self.end_jobs()
            output, _ = process.communicate()
            pytest.fail(f"not finished after {timeout} s: {left} left\n{output[-3000:]}")
        return Finished(process.returncode, output, time.monotonic() - began)

    def mpirun(
        self, ranks_per_host: int, command: list[str], timeout: float = 300, **environment: str
    ) -> Finished:
        """Run ``python command`` on so many ranks a host."""
        return self.finish(self.start(ranks_per_host, command, **environment), timeout)

    def jobs(self) -> dict[psutil.Process, str]:
        """Return the processes on both hosts and their names, sshd's left out."""
        found = {}
        for pid in _pids(self.first) + _pids(self.second):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if process.name() != "sshd" and process.status() != psutil.STATUS_ZOMBIE:
                    found[process] = process.name()
        return found

    def end_jobs(self) -> None:
        """Kill what still runs on both hosts."""
        for process in self.jobs():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Set up two hosts and take everything away afterwards; skip the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("two hosts on one machine need root")
    for tool in ("ip", "sshd", "ssh", "mpirun"):
        if not shutil.which(tool, path=PATH):
            pytest.skip(f"no {tool} here: run tools/install_test_packages.sh")
    mark = uuid.uuid4().hex[:6]
    first = Host(f"node1-{mark}", "10.77.0.1", f"v1{mark}")
    second = Host(f"node2-{mark}", "10.77.0.2", f"v2{mark}")
    with contextlib.ExitStack() as after, TemporaryDirectory(prefix="hosts-") as folder:
        for host in (first, second):
            if subprocess.run(["ip", "netns", "add", host.name], env={"PATH": PATH}).returncode:
                pytest.skip("this machine does not allow network namespaces")
            after.callback(_remove, host)
        _ip("link", "add", first.link, "type", "veth", "peer", "name", second.link)
        for host in (first, second):
            _ip("link", "set", host.link, "netns", host.name)
            _ip("addr", "add", f"{host.address}/24", "dev", host.link, host=host)
            _ip("link", "set", host.link, "up", host=host)
            _ip("link", "set", "lo", "up", host=host)
        _start_sshd((first, second), Path(folder))
        yield Hosts(first, second, Path(folder))


def _ip(*arguments: str, host: Host | None = None) -> None:
    where = ["-n", host.name] if host else []
    subprocess.run(["ip", *where, *arguments], check=True, env={"PATH": PATH})


def _pids(host: Host) -> list[int]:
    listed = subprocess.run(
        ["ip", "netns", "pids", host.name], capture_output=True, text=True, env={"PATH": PATH}
    )
    return [int(pid) for pid in listed.stdout.split()]


def _remove(host: Host) -> None:
    """Kill all that runs on a host and delete its namespace; its end of the cable goes with it."""
    for pid in _pids(host):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", host.name], env={"PATH": PATH})


def _start_sshd(hosts: tuple[Host, ...], folder: Path) -> None:
    """Start an sshd on each host with keys and settings of its own; return when all listen."""
    key, server_key = folder / "key", folder / "server_key"
    for file in (key, server_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    (folder / "sshd_config").write_text(
        f"HostKey {server_key}\nAuthorizedKeysFile {key}.pub\nPidFile none\nUsePAM no\n"
        "StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n  User {getpass.getuser()}\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
        "  BatchMode yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
        "  LogLevel ERROR\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    for host in hosts:
        log = (folder / f"{host.name}.log").open("w")
        subprocess.Popen(
            host.run(shutil.which("sshd", path=PATH), "-D", "-e", "-f", folder / "sshd_config"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": PATH},
        )
        log.close()
        _await_ssh(host, folder)


def _await_ssh(host: Host, folder: Path) -> None:
    login = ["ssh", "-F", folder / "ssh_config", host.address, "hostname"]
    for _ in range(50):
        answer = subprocess.run(host.run(*login), capture_output=True, text=True)
        if answer.stdout.strip() == host.name:
            return
        time.sleep(0.2)
    log = (folder / f"{host.name}.log").read_text()
    raise RuntimeError(f"no ssh to {host.name}: {answer.stderr}{log}")
