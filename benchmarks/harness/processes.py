"""Processes to be measured: run under a time limit, on the cores given, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import psutil

from hvd_utils.cli.errors import BadInput

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 600  # seconds that one measured process may take
MPI = {  # ranks that wait do not spin; a container's user may be root
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
SHOWN = 600  # characters of what it printed last


class Failed(BadInput):
    """A process that was to be measured failed or took too long; the text tells its last lines.

    ``last_line`` is the shortest form of why.
    """

    def __init__(self, text: str, last_line: str = "", *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.last_line, self.timed_out = last_line or text, timed_out


def finish(command: Sequence[object], *, cores: Collection[int] = (), timeout: float = TIMEOUT):
    """Run ``command`` and return its standard output; see ``finish_all``."""
    return finish_all([command], cores=[cores], timeout=timeout)[0]


def finish_all(
    commands: Sequence[Sequence[object]],
    *,
    cores: Sequence[Collection[int]],
    timeout: float = TIMEOUT,
) -> list[str]:
    """Run the commands at the same time, each on its ``cores`` (none: all); return their outputs.

    Raises Failed if one of them fails or all together take more than ``timeout`` seconds, and
    KeyboardInterrupt if this process is told to stop; whatever they started is killed then.
    """
    started: list[subprocess.Popen] = []
    others = set(psutil.Process().children())
    limit = time.monotonic() + timeout
    with _sigterm_as_interrupt():
        try:
            for command, own in zip(commands, cores, strict=True):
                started.append(start(command, own))
            return [_output(process, limit) for process in started]
        finally:
            for process in started:
                end(process)
            # One that was just being started when this process was told to stop.
            for process in set(psutil.Process().children()) - others:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def python(*arguments: object) -> list[str]:
    """Return the command that runs this Python with ``arguments``."""
    return [sys.executable, *map(str, arguments)]


def start(
    command: Sequence[object], cores: Collection[int], output: IO | int = subprocess.PIPE
) -> subprocess.Popen:
    """Start ``command`` on ``cores`` (none: all); what it prints goes to ``output``."""
    variables = {name: value for name, value in os.environ.items() if name != "IMAGENET_DIR"}
    paths = [str(REPOSITORY), *filter(None, [variables.get("PYTHONPATH")])]
    return subprocess.Popen(
        [*map(str, command)],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=variables | MPI | {"PYTHONPATH": os.pathsep.join(paths)},
        cwd=REPOSITORY,
        start_new_session=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )


def _output(process: subprocess.Popen, limit: float) -> str:
    try:
        output, _ = process.communicate(timeout=max(0.1, limit - time.monotonic()))
    except subprocess.TimeoutExpired:
        end(process)
        output, _ = process.communicate()
        text = f"not finished in time: {_describe(process, output)}"
        raise Failed(text, "not finished in time", timed_out=True) from None
    if process.returncode != 0:
        code = process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = [line[:200] for line in output.strip().splitlines()[-1:]]
        raise Failed(f"{how}: {_describe(process, output)}", ": ".join([how, *said]))
    return output


def _describe(process: subprocess.Popen, output: str) -> str:
    return f"{' '.join(map(str, cast(list, process.args)))}: {output[-SHOWN:]}"


def end(process: subprocess.Popen) -> None:
    """End a process that still runs, and every process below it."""
    if process.poll() is not None:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([psutil.Process(process.pid), *below], timeout=5)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
