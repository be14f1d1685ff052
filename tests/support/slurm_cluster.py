"""A Slurm of many nodes on this machine: ``python tests/support/slurm_cluster.py [COMMAND ...]``.

Runs the command (a shell, if none is given) with SLURM_CONF set, then takes everything away. Each
node is a slurmd with a hostname and processes of its own. Key, sockets, ports, state and logs are
the cluster's own, in a temporary folder, so that a Slurm of the machine is not touched. Every
daemon dies with the process that started it, even if that one is killed by SIGKILL, and all that
runs on a node dies with the node.

Needs root and Slurm's packages (tools/install_test_packages.sh).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare", "setpriv")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian keeps the daemons
READY_LIMIT = 240  # seconds, on a busy machine

# Of its own: hostname, process ids (whose first process takes all others along), mounts for /proc.
NODE = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")

CONF = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for as long as its old credentials are valid, 2 minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n.spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
# Where the PMIx plugin keeps its sockets, of each node its own.
TmpFS={folder}/local
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# The nodes have what is declared below, whatever the machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
# Short, for tests: a lost node is noticed, and what is told to end is killed, within seconds.
SlurmdTimeout={lost_after}
KillWait=5
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5,batch_sched_delay=1,sched_min_interval=0
NodeName=DEFAULT CPUs=64 RealMemory=1000 Gres=gpu:{gpus}
NodeName=node[01-{nodes:02}] NodeAddr=127.0.0.1 Port=[{first}-{last}]
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Return why no cluster can be had here, None if one can."""
    if os.geteuid() != 0:
        return "a Slurm of its own needs root"
    for tool in TOOLS:
        if not shutil.which(tool, path=PATH):
            return f"no {tool} here: run tools/install_test_packages.sh"
    if subprocess.run([*NODE, "true"], capture_output=True).returncode:
        return "this machine does not allow hostnames and process ids of one's own (unshare)"
    return None


class Cluster:
    """A running cluster; made by ``start_cluster``."""

    def __init__(self, folder: Path, nodes: int, gpus: int, lost_after: int) -> None:
        self.folder, self.nodes, self._gpus, self._lost_after = folder, nodes, gpus, lost_after
        self.conf = folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's commands talk to this cluster."""
        return {
            **os.environ,
            "PATH": PATH,
            "SLURM_CONF": str(self.conf),
            "TMPDIR": str(
                self.local
            ),  # Open MPI's files bear process ids, of which nodes share some
        }

    @property
    def local(self) -> Path:
        """A folder that is another one on each node, in memory."""
        return self.folder / "local"

    def run(self, *command: object, cwd: Path | None = None, **variables: str) -> str:
        """Run one of Slurm's commands and return what it prints; raises CalledProcessError."""
        done = subprocess.run(
            [*map(str, command)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**self.environment, **variables},
            timeout=240,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout.strip()

    def start(self) -> None:
        """Start munged, slurmctld and the nodes; return when all nodes are idle."""
        ports = free_ports(self.nodes + 1)
        self._write_configuration(ports)
        self._start_munge()
        self._start("slurmctld", "slurmctld", "-D", "-f", self.conf)
        for name in self.names():
            self.start_node(name)
        self._await(lambda: self._idle_nodes() == self.nodes, "all nodes idle")

    def names(self) -> list[str]:
        """The nodes' names."""
        return [f"node{number:02}" for number in range(1, self.nodes + 1)]

    def start_node(self, name: str) -> None:
        """Start a node, anew if it was lost."""
        own = 'hostname "$0" && mount -t tmpfs local "$1" && shift && exec "$@"'
        self._start(
            name,
            *NODE,
            "sh",
            "-c",
            own,
            name,
            self.local,
            "slurmd",
            "-D",
            "-N",
            name,
            "-f",
            self.conf,
        )

    def lose_node(self, name: str) -> None:
        """Kill a node's slurmd and all that runs on it, at once."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def stop(self) -> None:
        """End all daemons and what they started; return when nothing is left."""
        started = [*self._daemons.values()]
        below = [child for daemon in started for child in _below(daemon.pid)]
        for daemon in reversed(started):
            daemon.kill()
        for daemon in started:
            daemon.wait()
        for process in below:  # already dead, but for children of slurmctld
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(below, timeout=20)
        if alive:
            raise RuntimeError(f"still there after the end of the cluster: {alive}")

    def _write_configuration(self, ports: list[int]) -> None:
        (self.folder / "state").mkdir()
        self.local.mkdir()
        for name in self.names():
            (self.folder / f"{name}.spool").mkdir()
        devices = [self.folder / f"gpu{number}" for number in range(self._gpus)]
        for device in devices:
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # that of /dev/null
        files = f"{self.folder}/gpu[0-{self._gpus - 1}]"
        (self.folder / "gres.conf").write_text(f"Name=gpu File={files}\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        self.conf.write_text(
            CONF.format(
                name=self.folder.name,
                host=socket.gethostname(),
                folder=self.folder,
                port=ports[0],
                first=ports[1],
                last=ports[-1],
                nodes=self.nodes,
                gpus=self._gpus,
                lost_after=self._lost_after,
            )
        )

    def _start_munge(self) -> None:
        key, munge = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {
            "key-file": key,
            "socket": munge,
            "pid-file": self.folder / "munge.pid",
            "log-file": self.folder / "munge.log",
            "seed-file": self.folder / "munge.seed",
        }
        # --force: the folder lies below /tmp, which others may write to.
        options = [f"--{option}={file}" for option, file in files.items()]
        self._start("munged", "munged", "--foreground", "--force", *options)
        self._await(munge.exists, "munge")

    def _start(self, name: str, *command: object) -> None:
        with (self.folder / f"{name}.log").open("a") as log:
            self._daemons[name] = subprocess.Popen(
                [*DIES_WITH_US, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,  # a Ctrl-C is for us, who then end them in order
            )

    def _idle_nodes(self) -> int:
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").count("node")
        return 0

    def _await(self, ready, what: str) -> None:
        limit = time.monotonic() + READY_LIMIT
        while not ready():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > limit:
                logs = "".join(f"{log}:\n{log.read_text()[-1500:]}" for log in self._logs(dead))
                raise RuntimeError(f"the cluster did not come up ({what}; dead: {dead}):\n{logs}")
            time.sleep(0.1)

    def _logs(self, dead: list[str]) -> list[Path]:
        return [self.folder / f"{name}.log" for name in dead or ("slurmctld", "node01")]


@contextlib.contextmanager
def start_cluster(nodes: int = 32, gpus: int = 8, lost_after: int = 300) -> Iterator[Cluster]:
    """Start a cluster and take it away afterwards, also on an exception or SIGTERM.

    ``lost_after``: seconds until a node that does not answer counts as lost.
    """
    former = signal.signal(signal.SIGTERM, _leave)
    try:
        with TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
            cluster = Cluster(Path(folder), nodes, gpus, lost_after)
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.stop()
    finally:
        signal.signal(signal.SIGTERM, former)


def free_ports(count: int) -> list[int]:
    """Return so many ports in a row that nobody listens on, below those given to clients."""
    start = 12000 + os.getpid() * 101 % 15000
    for first in (*range(start, 30000, count), *range(12000, start, count)):
        ports = [*range(first, first + count)]
        if all(map(_is_free, ports)):
            return ports
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Start a cluster, run the command and return its exit code."""
    reason = why_not()
    if reason:
        sys.exit(reason)
    with start_cluster() as cluster:
        command = sys.argv[1:] or [os.environ.get("SHELL", "bash")]
        return subprocess.run(command, env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
