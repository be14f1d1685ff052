"""The processes that send a run's log to trackers while it goes on, seen from the run.

Each tracker has a process of its own, ``python -m hvd_utils.track RUN NAME --follow``, which reads
``metrics.jsonl``. So whatever a tracker does, waits for or breaks, training neither waits nor ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hvd_utils.cli.checkout import ROOT

FOLDER = "trackers"  # below the run's folder
LIMIT = 30.0  # seconds that the end of a launch waits for all of them


class Followers:
    """One process for each tracker that --track names."""

    def __init__(
        self, run: Path, trackers: Sequence[str], print_line: Callable[[str], None]
    ) -> None:
        self._all = [_Follower(run, name, print_line) for name in trackers]

    def check(self) -> None:
        """Show what they have to say; does not wait."""
        for follower in self._all:
            follower.check()

    def leave(self) -> None:
        """Have them send the rest by themselves: the launch ends at once."""
        for follower in self._all:
            follower.tell_the_end()

    def close(self) -> None:
        """Have them send the rest, and end those that take too long."""
        until = time.monotonic() + LIMIT
        for follower in self._all:
            follower.tell_the_end()
        for follower in self._all:
            follower.wait(until)
        self._all = []


class _Follower:
    """One of them. What it prints is shown, what its tracker complains of is in a file."""

    def __init__(self, run: Path, name: str, print_line: Callable[[str], None]) -> None:
        self._name, self._print_line = name, print_line
        self._remedy = f"python -m hvd_utils.track {run} {name} sends what is missing"
        self._process: subprocess.Popen | None = None
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        try:
            (run / FOLDER).mkdir(exist_ok=True)
            with (run / FOLDER / f"{name}.log").open("a") as complaints:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "hvd_utils.track", str(run), name, "--follow"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    env=os.environ | {"PYTHONPATH": path},
                    start_new_session=True,  # Ctrl-C and the launcher's signals are for ranks
                )
            os.set_blocking(self._process.stdout.fileno(), False)
        except OSError as error:
            print_line(f"warning: --track {name}: {error}; {self._remedy}")

    def check(self) -> None:
        if self._process is None:
            return
        code = self._process.poll()
        for line in (self._process.stdout.read() or b"").decode("utf-8", "replace").splitlines():
            self._print_line(line)
        if code is not None:
            if code not in (0, 1):  # 1: it has said why
                self._print_line(
                    f"warning: --track {self._name} ended with code {code}; {self._remedy}"
                )
            self._release()

    def tell_the_end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self, until: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._print_line(
                f"warning: --track {self._name} was not done in {LIMIT:.0f} s; {self._remedy}"
            )
            self._release()
        self.check()

    def _release(self) -> None:
        self._process.stdout.close()
        self.tell_the_end()
        self._process = None
