"""The watchdog: end a job in which a rank hangs, since MPI would wait for it for ever.

Two threads in every rank. One counts the seconds without progress and touches no file, for storage
that hangs must not hold it up. The other writes this rank's report and reads everyone's.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import threading
import time
from pathlib import Path

from hvd_utils.cli.errors import EXIT_HANGS
from hvd_utils.cli.run_main import GRACE_SECONDS
from hvd_utils.faults.hang_diagnosis import STILL, Diagnosis, diagnose
from hvd_utils.faults.heartbeat import (
    COMPILING,
    FINISHED,
    Heartbeat,
    heartbeat_path,
    read_heartbeats,
    write_heartbeat,
)

LOOKS_APART = 2.0  # seconds at least between two readings of the other heartbeats
COMPILE_SECONDS = 1800.0  # that one pass may compile, before they count
STORAGE_SECONDS = 12.0  # that a busy file system may take for them


class Watchdog:
    """Watches one rank; when it made no progress for ``timeout`` seconds, all end.

    ``folder`` is the run's, shared by all hosts. ``remedy`` ends the one line that the job leaves.
    A timeout of 0 turns it off.
    """

    def __init__(
        self, folder: Path, rank: int, size: int, host: str, timeout: float, remedy: str
    ) -> None:
        self._folder, self._rank, self._size, self._host = folder, rank, size, host
        self._timeout, self._remedy = timeout, remedy
        self._beat = min(timeout / 5, 10.0)  # seconds between two reports
        self._tick = min(timeout / 25, 2.0)  # and between two counts
        self._looks_apart = max(3 * self._beat, LOOKS_APART)
        self._place = (0, "starting", 0)
        self._idle = 0.0
        self._written = 0
        self._stopped, self._asked = threading.Event(), threading.Event()
        self._verdicts: queue.Queue[Diagnosis | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._count, name="watchdog", daemon=True),
            threading.Thread(target=self._report, name="watchdog-reports", daemon=True),
        ]

    def beat(self, step: int, doing: str, count: int = 0) -> None:
        """Tell where this rank stands; a change of any of the three is progress. Costs nothing.

        ``doing`` is what it turns to now, as "reading images"; ``rank_files.WAITING`` where it
        waits for the others. ``count`` numbers the pieces of longer work within a step.
        """
        self._place = (step, doing, count)

    def start(self) -> None:
        """Begin to watch."""
        if self._timeout:
            self._set_last_resort()
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """Stop watching, and record for the other ranks that this one is done."""
        self._stopped.set()
        if self._timeout:
            for thread in self._threads:
                thread.join(GRACE_SECONDS)  # not for ever: storage may hang
            faulthandler.cancel_dump_traceback_later()

    def _count(self) -> None:
        """Add up the time without progress, and end the process when it is too long.

        Time in which this process was itself stopped, as by a scheduler that suspends the whole
        job, does not count: then many seconds pass between two ticks. Neither does a compilation;
        the other ranks see meanwhile that this one is not idle.
        """
        place, last = self._place, time.monotonic()
        compiled = 0.0
        while not self._stopped.wait(self._tick):
            self._set_last_resort()
            now = time.monotonic()
            spent = min(now - last, 2 * self._tick)
            if self._place != place:
                self._idle = compiled = 0.0
            elif place[1] == COMPILING and compiled < COMPILE_SECONDS:
                compiled += spent
            else:
                self._idle += spent
            place, last = self._place, now
            if self._idle >= self._timeout:
                self._end_unless_it_goes_on()
                self._idle = STILL * self._timeout
                last = time.monotonic()

    def _set_last_resort(self) -> None:
        """Have C end this process, and show where it stood, if no thread of Python's wakes again.

        So it is where a call into a library holds Python's lock; the exit code is 1 then. The time
        is more than all that this thread waits for after it last came here.
        """
        faulthandler.dump_traceback_later(3 * self._timeout + 20, exit=True)

    def _end_unless_it_goes_on(self) -> None:
        place = self._place
        self._asked.set()
        longest = self._looks_apart + 3 * self._beat + STORAGE_SECONDS
        try:
            verdict = self._verdicts.get(timeout=longest)
        except queue.Empty:
            verdict = Diagnosis(f"the storage of {self._folder} does not answer either", speaker=0)
        if verdict is None or self._place != place or self._stopped.is_set():
            return
        if verdict.speaker == self._rank:
            line = f"error: no step was finished for {self._timeout:g} s: {verdict.reason}"
            # Past Python's own buffer, whose lock a rank that hangs in a print would hold.
            with contextlib.suppress(OSError):
                os.write(2, f"{line}; {self._remedy}\n".encode(errors="backslashreplace"))
        else:
            # The speaker may have come to a halt a little later than this rank.
            time.sleep((1 - STILL) * self._timeout + 2 * self._beat + GRACE_SECONDS)
        os._exit(EXIT_HANGS)  # without Horovod's farewell, which would wait for the others

    def _report(self) -> None:
        """Write a heartbeat at intervals; on request, compare two readings of all heartbeats."""
        stacks = heartbeat_path(self._folder, self._rank).with_suffix(".stacks")
        with contextlib.suppress(OSError):
            stacks.unlink()  # of an earlier launch
        before, looked = None, 0.0
        while True:
            self._write(*self._place)
            if self._asked.is_set() and before is None:
                with contextlib.suppress(OSError), stacks.open("w") as file:
                    faulthandler.dump_traceback(file)  # of every thread: where Python stands
                before, looked = read_heartbeats(self._folder, self._size), time.monotonic()
            elif self._asked.is_set() and time.monotonic() - looked >= self._looks_apart:
                after = read_heartbeats(self._folder, self._size)
                me = after.get(self._rank) or self._make_heartbeat(*self._place)
                self._asked.clear()
                self._verdicts.put(diagnose(me, self._size, before, after, self._timeout))
                before = None
            if self._stopped.wait(self._beat):
                break
        self._write(self._place[0], FINISHED, 0)
        self._verdicts.put(None)  # so that no thread waits for a verdict

    def _write(self, step: int, doing: str, count: int) -> None:
        write_heartbeat(self._folder, self._make_heartbeat(step, doing, count))

    def _make_heartbeat(self, step: int, doing: str, count: int) -> Heartbeat:
        self._written += 1
        return Heartbeat(
            self._rank, self._host, os.getpid(), self._written, step, doing, count, self._idle
        )
