"""An elastic job of real processes, on hosts that can be killed and added while it runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support.failures import note_launch
from support.launching import kill_tree
from support.quick_python import quick_python

# Names of this machine, which Horovod takes for as many hosts and none of which needs ssh.
HOSTS = ("localhost", "127.0.0.1", "127.1")


class ElasticJob:
    """``python command`` under horovodrun, one process a host; a context manager that ends it."""

    def __init__(
        self,
        folder: Path,
        hosts: tuple[str, ...],
        command: list[str],
        *,
        gloo_timeout: int = 30,
        **env: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._hosts, self._log = folder / "hosts", folder / "log"
        self._hosts.write_text("")
        for host in hosts:
            self.add(host)
        script = folder / "discover.sh"
        script.write_text(f"#!/bin/sh\ncat {self._hosts}\n")
        script.chmod(0o755)
        launcher = ["horovodrun", "--gloo", "--network-interface", "lo", "--min-np", "1"]
        launcher += [
            "--gloo-timeout-seconds",
            str(gloo_timeout),
            "--max-np",
            "3",
            "-np",
            str(len(hosts)),
            "--host-discovery-script",
        ]
        command = [*launcher, str(script), *quick_python(), *command]
        note_launch(command, self._log)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )

    def __enter__(self) -> ElasticJob:
        return self

    def __exit__(self, *_) -> None:
        if self._process.poll() is None:
            kill_tree(self._process)

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def add(self, host: str) -> None:
        with self._hosts.open("a") as file:
            file.write(f"{host}:1\n")

    def kill(self, host: str) -> None:
        """Kill the job's process on a host, as a machine that stops would."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # another one may end meanwhile
                if process.environ().get("HOROVOD_HOSTNAME") == host:
                    process.kill()
                    return
        raise AssertionError(f"no process on {host}\n{self.output}")

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > limit or self._process.poll() is not None:
                pytest.fail(f"did not come about within {seconds} s\n{self.output[-3000:]}")
            time.sleep(0.1)

    def finish(self, seconds: float) -> int:
        """Wait for the end; return horovodrun's exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not finished after {seconds} s\n{self.output[-3000:]}")
