"""Run a command: a failure ends in one line and a non-zero exit code of all ranks."""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_RESUME, BadInput, Stopped
from hvd_utils.cli.ranks import launched_rank

# Rank 0 speaks first. Another rank that fails waits this long: had rank 0 failed for the same
# reason, the launcher would have ended everyone by then.
GRACE_SECONDS = 4.0
_traceback_folder: Path | None = None


def keep_tracebacks_in(folder: Path) -> None:
    """Have unexpected errors leave their traceback in a file of ``folder``, not on the console."""
    global _traceback_folder
    _traceback_folder = folder


def run_main(main: Callable[[], None]) -> None:
    """Run ``main`` and turn any failure into one line and a non-zero exit of the whole job.

    A rank that fails leaves without Horovod's farewell, so that the launcher ends the others
    instead of their waiting for it.
    """
    for stream in (sys.stdout, sys.stderr):  # a locale without γ or § shows their numbers
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except BadInput as error:
        _leave(" ".join(str(error).split()), EXIT_BAD_INPUT)
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # the launcher may be dead
            if launched_rank() == 0:
                print(stopped, flush=True)
        os._exit(EXIT_RESUME)
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread(1):
            _leave("nobody reads the output any more, as behind | head", EXIT_FAILED)
        if type(error).__name__ == "HorovodInternalError":
            # Another rank left during an allreduce and printed why; the launcher ends this one.
            time.sleep(2 * GRACE_SECONDS)
            _leave(f"another rank left the job ({error})", EXIT_FAILED)
        _leave(f"{_summary(error)}; {_keep_traceback()}", EXIT_FAILED)


def _is_unread(descriptor: int) -> bool:
    """Return whether it is a pipe whose reader is gone."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _leave(message: str, code: int) -> None:
    rank = launched_rank()
    if rank == 0:
        line = f"error: {message}"
    else:
        time.sleep(GRACE_SECONDS)
        line = f"error on rank {rank} ({socket.gethostname()}): {message}"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed or full
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)
    os._exit(code)


def _summary(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _keep_traceback() -> str:
    if _traceback_folder is not None:
        path = _traceback_folder / f"error-rank{launched_rank()}.txt"
        try:
            path.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
            return f"the traceback is in {path}"
        except OSError:
            pass  # the folder may be what failed
    traceback.print_exc()
    return "the traceback is above"
