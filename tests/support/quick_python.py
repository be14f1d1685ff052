"""A ``python`` whose PyTorch, DALI and Horovod are imported already (see python_server.py)."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import psutil

HERE = Path(__file__).parent
START_LIMIT = 300  # seconds, on a busy machine

# Read by the interpreter or a library when it starts, which is over by then.
READ_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "OPENBLAS_", "MKL_", "LD_")
READ_AT_START += ("TORCH", "CUDA_", "HF_", "HOROVOD_")
# A forked process cannot use a GPU that the process it comes from has opened.
GPU = Path("/dev/nvidiactl")


def quick_python(variables: Iterable[str] = ()) -> list[str]:
    """Return the command that stands for ``python``, in an environment with ``variables`` set."""
    needs_a_start = [
        name for name in variables if name.startswith(READ_AT_START) and name != "PYTHONPATH"
    ]
    if needs_a_start or GPU.exists():
        return [sys.executable]
    os.environ["PYTHON_SERVER"] = _server()
    return [sys.executable, "-IS", str(HERE / "python_client.py")]


def runs(process: psutil.Process, program: str) -> bool:
    """Whether a process is a Python, quick or not, that was started with a program's file."""
    with contextlib.suppress(psutil.Error):  # it may end meanwhile
        return program in process.cmdline()[1:4]
    return False


def forked_for(client: psutil.Process) -> psutil.Process:
    """Return the process that stands behind a quick Python; another process as it is."""
    named = f"for {client.pid}"
    return next((p for p in psutil.process_iter(["name"]) if p.info["name"] == named), client)


@cache
def _server() -> str:
    """Start a server unless a test's own tests have one already; return its socket."""
    if (there := os.environ.get("PYTHON_SERVER")) and Path(there).exists():
        return there
    folder = tempfile.TemporaryDirectory(prefix="python-")
    socket, log = Path(folder.name, "socket"), Path(folder.name, "log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "python_server.py"), str(socket)],
            stdin=subprocess.PIPE,  # whose end, with ours, is the server's
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def end() -> None:
        process.stdin.close()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    limit = time.monotonic() + START_LIMIT
    while not socket.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.02)
    return str(socket)
