"""Start Python programs without their imports: ``python python_server.py SOCKET``.

A rank needs two to three seconds until PyTorch, DALI and Horovod are imported. This server imports
them once, and nothing of this project, and forks a process for each program that a python_client.py
asks for. The process has the arguments, environment, folder, cores and open streams of its client;
only its command line, parent and session are the server's. What it does to itself stays its own.
At its end, what was registered by atexit runs; the interpreter is not taken down, which would copy
every page that the process shares with the server.

The server ends, and all that it forked, when its standard input is closed.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import io
import json
import os
import random
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import types
import weakref
from pathlib import Path

IMPORTED = (
    *("numpy", "torch", "torchvision", "PIL.Image", "nvidia.dali.fn", "horovod.torch", "pydantic"),
    *("nvidia.dali.math", "nvidia.dali.types", "torchvision.transforms.v2", "yaml", "psutil"),
    *("tqdm", "mpi4py", "tensorboard.summary.writer.event_file_writer", "torch.utils.tensorboard"),
    *("timm.optim", "_pytest.python", "pytest", "hypothesis", "cloudpickle"),
)
SIZE = struct.Struct("!Q")  # of the request that follows
UNWRITTEN = 120  # what Python exits with where it cannot write what was printed


def main() -> None:
    """Serve; in a forked process, become the program that was asked for."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1] + ".new")
    listener.listen(64)
    for name in IMPORTED:
        __import__(name)
    for at_exit in list(weakref.finalize._registry):
        at_exit.atexit = False  # what the libraries hold ends with the process
    gc.collect()
    gc.freeze()
    os.rename(sys.argv[1] + ".new", sys.argv[1])  # whoever waits may begin
    request = serve(listener)
    end(run(request))


def serve(listener: socket.socket) -> dict:
    """Fork a process for each request; return it there."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ, "asked")
    waiting.register(sys.stdin.fileno(), selectors.EVENT_READ, "closed")
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd

    def leave(pidfd: int) -> None:
        _, client = running.pop(pidfd)
        for end in (pidfd, client):
            waiting.unregister(end)
        client.close()
        os.close(pidfd)

    while True:
        for key, _ in waiting.select():
            if key.data == "closed":
                for pid, _ in running.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif key.data == "asked":
                client, _ = listener.accept()
                request = receive(client)
                if request is None:
                    client.close()
                    continue
                pid = os.fork()
                if pid == 0:
                    for _, other in running.values():
                        other.close()
                    for pidfd in running:
                        os.close(pidfd)
                    waiting.close()
                    client.close()
                    listener.close()
                    return request
                for descriptor in request["streams"]:
                    os.close(descriptor)
                with contextlib.suppress(OSError):  # it may be gone: seen below
                    client.sendall(SIZE.pack(pid))
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, client
                waiting.register(pidfd, selectors.EVENT_READ, "ended")
                waiting.register(client, selectors.EVENT_READ, pidfd)
            elif key.data == "ended" and key.fd in running:
                pid, client = running[key.fd]
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):
                    client.sendall(SIZE.pack(status))
                leave(key.fd)
            elif key.data in running:  # the client is gone: so goes what it asked for
                pid, _ = running[key.data]
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                leave(key.data)


def receive(client: socket.socket) -> dict | None:
    """Return what a client asks for, with its streams; None if it is gone already."""
    streams = array.array("i")
    with contextlib.suppress(OSError):
        data, ancillary, _, _ = client.recvmsg(SIZE.size, socket.CMSG_SPACE(3 * streams.itemsize))
        for _, _, descriptors in ancillary:
            streams.frombytes(descriptors)
        if len(data) == SIZE.size and len(streams) == 3:
            (size,) = SIZE.unpack(data)
            text = b""
            while len(text) < size and (part := client.recv(size - len(text))):
                text += part
            if len(text) == size:
                return json.loads(text) | {"streams": list(streams)}
    for descriptor in streams:
        os.close(descriptor)
    return None


def run(request: dict) -> int | str | None:
    """Be the program that was asked for; return what ``sys.exit`` would be given."""
    try:
        become(request)
    except SystemExit as asked:
        return asked.code & 0xFF if isinstance(asked.code, int) else asked.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def end(code: int | str | None) -> None:
    """End the process as ``python`` would, but for the interpreter's own end."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # waits for the threads that a program has to wait for
    # A library that collects garbage at the end would go through all that is shared.
    atexit.unregister(gc.unfreeze)
    gc.freeze()
    atexit._run_exitfuncs()
    if (mpi := sys.modules.get("mpi4py.MPI")) and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()
    for opened in (sys.stdout, sys.stderr):
        try:
            opened.flush()
        except ValueError:  # closed
            pass
        except OSError as error:
            code = UNWRITTEN
            with contextlib.suppress(OSError, ValueError):
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


def become(request: dict) -> None:
    """Run the program as ``python`` would, in this process."""
    with contextlib.suppress(ProcessLookupError):
        os.sched_setaffinity(0, os.sched_getaffinity(request["pid"]))
    os.setpgid(0, 0)
    Path("/proc/self/comm").write_text(f"for {request['pid']}")  # for who looks for it
    for number, descriptor in enumerate(request["streams"]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.umask(request["umask"])
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    at_once = "PYTHONUNBUFFERED" in os.environ
    sys.stdout = sys.__stdout__ = stream(1, write_through=at_once, line_buffering=os.isatty(1))
    sys.stderr = sys.__stderr__ = stream(2, line_buffering=True, errors="backslashreplace")
    random.seed()  # or all processes would draw the same
    sys.modules["numpy"].random.seed()

    program, *arguments = request["arguments"]
    own = Path(__file__).resolve().parent
    paths = [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(":") if p]
    sys.path[:] = [*paths, *(path for path in sys.path if Path(path or ".").resolve() != own)]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if program == "-c":
        source, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path.insert(0, "")
        code = compile(source, "<string>", "exec")
    elif program == "-m":
        name, *arguments = arguments
        sys.argv = ["-m", *arguments]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(name)
        return
    else:
        sys.argv = [program, *arguments]
        sys.path.insert(0, str(Path(program).resolve().parent))
        main.__file__ = program
        code = compile(Path(program).read_bytes(), program, "exec")
    exec(code, main.__dict__)


def stream(descriptor: int, **options: object) -> io.TextIOWrapper:
    """Return what Python makes of an open file at its start."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", **options)


if __name__ == "__main__":
    main()
