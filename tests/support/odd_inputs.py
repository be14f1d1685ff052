"""Odd inputs: a command is run in this process as a user runs it, and how it ends is looked at.

What ends badly fails here: another exit code, no line that names the thing, two of them or one of
pages, a traceback, a hang, or files where none should be.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from hvd_utils.cli import run_main as run_main_module
from hvd_utils.cli.errors import EXIT_BAD_INPUT
from hvd_utils.cli.run_main import run_main

LIMIT = 90.0  # seconds that a command may take, on a busy machine
ROOM = 4 << 30  # bytes that it may ask for
LONGEST = 2000  # characters of a line that somebody reads
BEGIN = re.compile(r"(python -m [\w.]+: |launch: )?error: ")  # of the one line


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, None if it hung, and what it printed."""

    code: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


class _Left(BaseException):
    """The command would have ended the process."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class _Os:
    """The module ``os``, but that it ends no process."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def _exit(code: int) -> None:
        raise _Left(code)


def rows(table: Sequence[tuple]) -> list[Any]:
    """Return a table for ``parametrize``, each row under the name of what is given."""
    return [pytest.param(*row, id=str(row[0]) or "nothing") for row in table]


def words(given: str, **places: object) -> list[str]:
    """Return a command line in pieces; ``{here}`` and the like are places."""
    return [piece.format(**places) for piece in shlex.split(given)]


def call(main: Callable[[], None], *arguments: object, **environment: str) -> Ended:
    """Run ``main`` as ``python -m`` does, with these arguments and variables."""
    before = dict(os.environ)
    with _stream() as out, _stream() as err, pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_main_module, "os", _Os())
        patch.setattr(run_main_module, "_traceback_folder", None)
        patch.setattr(threading, "excepthook", threading.excepthook)
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        os.environ.pop("IMAGENET_DIR", None)
        os.environ.update(environment)
        try:
            with _limited():
                run_main(main)
            code = 0
        except _Left as left:
            code = left.code
        except SystemExit as left:  # argparse, or a command that says its code
            code = left.code or 0
        finally:
            os.environ.clear()
            os.environ.update(before)
        return Ended(code, _text(out), _text(err))


def _stream() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape")


def _text(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


@contextmanager
def _limited() -> Iterator[None]:
    """End the block, as if by a hang, after ``LIMIT`` seconds; let it have ``ROOM`` bytes more."""

    def hangs(number: int, frame: object) -> None:
        raise _Left(None)

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    former = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def assert_ends(ended: Ended, code: int, *named: str) -> None:
    """It ended with this code, and its one line names all these; with another code, it says them.

    Only code 2 has a line that begins with ``error``.
    """
    shown = f"code {ended.code}:\n{ended.said[-3000:]}"
    assert ended.code == code, shown
    assert "Traceback" not in ended.said, shown
    lines = [line for line in ended.err.splitlines() if "error: " in line]
    assert len(lines) == (code == EXIT_BAD_INPUT), shown
    assert all(BEGIN.match(line) and len(line) <= LONGEST for line in lines), shown
    for name in named:
        assert name in (lines[0] if lines else ended.said), f"not named: {name}\n{shown}"


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every name below a folder, with what would show that it was written."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            stat = os.lstat(path)
            written = (stat.st_size, stat.st_mtime_ns) if name in names else (0, 0)
            found[os.path.relpath(path, folder)] = written
    return found


@contextmanager
def nothing_written(folder: Path, allowed: Iterable[str] = ()) -> Iterator[None]:
    """Within the block no file of ``folder`` comes, goes or changes, but for those ``allowed``."""
    before = files(folder)
    yield
    after = files(folder)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not changed - set(allowed)
