"""Two hosts joined by a slow link, on one machine: network namespaces and a shaped cable."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

NETWORK = "10.78.0.0/24"
LINK = "slow0"  # what each end of the cable is called on its host
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # Debian keeps ip and tc off users' PATH


class NoLink(Exception):
    """No such link can be made here; the text is the reason."""


@contextlib.contextmanager
def slow_link(gbit: float) -> Iterator[list[str]]:
    """Give the start of a command that launches two ranks, one at each end of a link.

    The link carries ``gbit`` Gbit/s each way. Raises NoLink where that needs a right or a tool
    that is not there.
    """
    if os.geteuid() != 0:
        raise NoLink("two hosts on one machine need root")
    for tool in ("ip", "tc", "mpirun"):
        if not shutil.which(tool, path=PATH):
            raise NoLink(f"no {tool} here: run tools/install_test_packages.sh")
    mark = uuid.uuid4().hex[:6]
    hosts = [(f"link{n}-{mark}", f"l{n}{mark}", f"10.78.0.{n}") for n in (1, 2)]
    with contextlib.ExitStack() as after, TemporaryDirectory(prefix="link-") as folder:
        try:
            for name, _, _ in hosts:
                _run("ip", "netns", "add", name)
                after.callback(_run, "ip", "netns", "del", name)
            (_, link, _), (_, other, _) = hosts
            _run("ip", "link", "add", link, "type", "veth", "peer", "name", other)
            for name, link, address in hosts:
                _run("ip", "link", "set", link, "netns", name, "name", LINK)
                _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", LINK)
                for device in (LINK, "lo"):
                    _run("ip", "-n", name, "link", "set", device, "up")
                _shape(name, gbit)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode().strip()
            raise NoLink(f"this machine does not allow it: {reason}") from error
        yield _launcher(Path(folder), hosts)


def _shape(host: str, gbit: float) -> None:
    # A token bucket, which every kernel has; a burst has to hold the largest packet, 64 KB.
    shape = ("rate", f"{round(1000 * gbit)}mbit", "burst", "256kb", "latency", "50ms")
    _run("tc", "-n", host, "qdisc", "add", "dev", LINK, "root", "tbf", *shape)


def _launcher(folder: Path, hosts: list[tuple[str, str, str]]) -> list[str]:
    """Return an mpirun that reaches the second host without ssh."""
    (first, _, _), (second, _, _) = hosts
    agent, file = folder / "agent", folder / "hosts"
    # Open MPI takes hosts of one name for one host.
    inside = "ip netns exec {0} unshare --uts sh -c 'hostname {0} && exec \"$@\"' sh"
    agent.write_text(f'#!/bin/sh\nshift\nexec {inside.format(second)} sh -c "$*"\n')
    agent.chmod(0o755)
    file.write_text("".join(f"{address} slots=1\n" for _, _, address in hosts))
    enter = ["ip", "netns", "exec", first, "unshare", "--uts", "sh", "-c"]
    return [
        *enter,
        f'hostname {first} && exec "$@"',
        "sh",
        *(shutil.which("mpirun"), "-np", "2", "--hostfile", str(file), "--bind-to", "none"),
        *("--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "prte_if_include", NETWORK),
        *("--mca", "btl_tcp_if_include", NETWORK),
        *(part for name in ("PATH", "PYTHONPATH") if name in os.environ for part in ("-x", name)),
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": PATH})
