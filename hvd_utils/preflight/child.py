"""A child process for work that may crash or hang, with a time limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from hvd_utils.cli.ranks import launched_local_rank

# Variables that make a process a rank, which the child is not.
RANK_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "HOROVOD_")


class ChildFailed(Exception):
    """The child crashed or reported an error; the text describes it."""


class ChildTimeout(ChildFailed):
    """The child gave no answer in time."""


class Child:
    """One child process that carries out one request after the other; see ``child_tasks``.

    It is started at once, so that it imports while its parent does other things, and ends with it.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {k: v for k, v in os.environ.items() if not k.startswith(RANK_PREFIXES)}
        local_rank = str(launched_local_rank() or 0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hvd_utils.preflight.child_tasks", local_rank],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )

    def ask(self, task: str, limit: float, **arguments: Any) -> Any:
        """Return the answer to a request; raise ChildTimeout or ChildFailed."""
        if self._process.poll() is not None:
            self._start()
        request = json.dumps({"task": task, **arguments}) + "\n"
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
            answer = self._read_line(time.monotonic() + limit)
        except (BrokenPipeError, EOFError):
            raise ChildFailed(f"{self._end()} in {task}{self._last_words()}") from None
        if answer is None:
            self.close()
            raise ChildTimeout(f"no answer within {limit:.0f} s in {task}")
        reply = json.loads(answer)
        if "error" in reply:
            raise ChildFailed(reply["error"])
        return reply["facts"]

    def close(self) -> None:
        """Kill the child."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _read_line(self, until: float) -> bytes | None:
        line = b""
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise EOFError
            line += piece
        return line

    def _end(self) -> str:
        code = self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _last_words(self) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""
