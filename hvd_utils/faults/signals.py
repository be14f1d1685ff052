"""Requests to stop: a signal, or a dead launcher, sets a flag that the training loop checks."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from hvd_utils.cli.errors import EXIT_RESUME, Stopped
from hvd_utils.cli.ranks import RANK_VARIABLES, launched_rank

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
EXIT_INTERRUPTED = 130  # as shells report a program that Ctrl-C ended

LAUNCHER_DIED = "the death of its launcher"
POLL_SECONDS = 0.5  # seconds between two checks of the launcher and the clock


class StopRequest:
    """Whether this process was asked to stop since its creation; made in the main thread.

    SIGTERM, SIGINT, SIGUSR1 and the death of the launcher (if there is one) only set a flag; a
    second SIGINT ends the process at once, with code 130. A thread takes the signals, since Python
    runs its handlers in the main thread alone, which may be waiting inside Horovod for ever.
    ``close``, or leaving its ``with`` block, brings the former handlers back; behind ``Stopped``,
    which ends the process, signals are ignored.
    """

    def __init__(self) -> None:
        self._signal_name: str | None = None
        self._since = 0.0
        self._interrupts = 0
        self._late: list[tuple[float, Callable[[], None]]] = []
        self._closed = threading.Event()

        launched = any(name in os.environ for name in RANK_VARIABLES)
        self._launcher = os.getppid() if launched else None

        # A signal with a Python handler has its number written here at once, whatever Python does.
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._former_descriptor = signal.set_wakeup_fd(self._write_end)
        self._former_handlers = {number: signal.signal(number, _leave_it) for number in SIGNALS}
        self._thread = threading.Thread(target=self._listen, name="stop request", daemon=True)
        self._thread.start()

    @property
    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self._signal_name is not None

    @property
    def signal_name(self) -> str | None:
        """The first cause: a signal's name or ``LAUNCHER_DIED``; None if there is none."""
        return self._signal_name

    @property
    def seconds_ago(self) -> float | None:
        """Seconds since the first request; None if there was none."""
        return time.monotonic() - self._since if self.requested else None

    def if_ignored(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` if this process still runs ``seconds`` after it was asked to stop.

        For a main thread that waits for ranks that are dead. Called once, in a thread of its own,
        so it may neither raise an exception that anybody sees nor rely on the main thread.
        """
        self._late.append((seconds, action))

    def leave_when_told(self) -> None:
        """End this process at once when it is asked to stop: there is nothing to save yet."""
        self.if_ignored(0, self._leave_unsaved)

    def forget_actions(self) -> None:
        """Call none of the actions any more, as those of a run that is over."""
        self._late.clear()

    def close(self) -> None:
        """Forget the request's actions and bring the former signal handlers back."""
        if self._closed.is_set():
            return
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_descriptor)
        self._closed.set()
        os.write(self._write_end, b"\0")  # no signal: only wakes the thread
        self._thread.join()
        os.close(self._read_end)
        os.close(self._write_end)

    def __enter__(self) -> StopRequest:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Stopped):
            # All ranks stop: the one that gets its signal last must not die of it.
            self._former_handlers = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        self.close()

    def _leave_unsaved(self) -> None:
        if launched_rank() == 0:
            told = f"told to stop ({self.signal_name}): there is nothing to save"
            with contextlib.suppress(OSError):  # the launcher may be dead
                os.write(1, f"{told}; the same command starts again\n".encode())
        interrupted = self.signal_name == signal.Signals.SIGINT.name
        os._exit(EXIT_INTERRUPTED if interrupted else EXIT_RESUME)

    def _listen(self) -> None:
        while not self._closed.is_set():
            readable, _, _ = select.select([self._read_end], [], [], POLL_SECONDS)
            for number in os.read(self._read_end, 100) if readable else b"":
                self._take(number)
            if self._launcher is not None and os.getppid() != self._launcher:
                self._request(LAUNCHER_DIED)
            self._act_if_late()

    def _take(self, number: int) -> None:
        if number not in SIGNALS:
            return
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts == 2:
                _leave_at_once()
        self._request(signal.Signals(number).name)

    def _request(self, name: str) -> None:
        if not self.requested:
            self._since = time.monotonic()  # before the name: ``requested`` reads it
            self._signal_name = name

    def _act_if_late(self) -> None:
        ago = self.seconds_ago
        if ago is None:
            return
        due = [entry for entry in self._late if ago >= entry[0]]
        for entry in due:
            with contextlib.suppress(ValueError):  # forgotten meanwhile
                self._late.remove(entry)
            threading.Thread(target=entry[1], name="stop ignored", daemon=True).start()


def _leave_it(number: int, frame: object) -> None:
    """Do nothing: without a Python handler, nothing would be written for the thread."""


def _leave_at_once() -> None:
    if launched_rank() == 0:
        os.write(2, b"error: interrupted\n")  # sys.stderr may be locked by the main thread
    os._exit(EXIT_INTERRUPTED)
