"""A step of the set-up: a command with its output in a log, or one line that says what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Failure(Exception):
    """A step failed; the message says in one line what to do; ``printed`` is what it said last."""

    def __init__(self, remedy: str, printed: Sequence[str] = ()) -> None:
        super().__init__(remedy)
        self.printed = printed


def run(command: list[str], log: Path, remedy: str, timeout: float = 3600, **options) -> str:
    """Run ``command`` with its output in ``log``; return that, or raise Failure(``remedy``)."""
    with log.open("a") as file:
        file.write(f"\n$ {' '.join(command)}\n")
        file.flush()
        start = file.tell()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            file.write(f"{error}\n")
            process.terminate()  # on which mpirun ends its ranks
            try:
                code = process.wait(10) or -1
            except subprocess.TimeoutExpired:
                process.kill()
                code = -1
    output = log.read_bytes()[start:].decode(errors="replace")
    if code != 0:
        raise Failure(remedy, output.splitlines()[-12:])
    return output
