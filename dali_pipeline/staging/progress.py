"""Progress of a node: a bar on a terminal, otherwise a line at intervals."""

from __future__ import annotations

import threading
import time

from hvd_utils.cli.progress_bar import open_terminal, tqdm

LINE_SECONDS = 30


class Progress:
    """Shows how many of ``total`` bytes are done, if it is ``shown``; a context manager."""

    def __init__(self, what: str, total: int, shown: bool) -> None:
        self._what, self._total, self._shown = what, total, shown
        self._done = 0
        self._lock = threading.Lock()
        self._line_due = time.monotonic() + LINE_SECONDS
        self._screen = open_terminal() if shown else None
        self._bar = tqdm(
            desc=what,
            total=total,
            unit="B",
            unit_scale=True,
            file=self._screen,
            disable=self._screen is None,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._screen:
            self._screen.close()

    def advance(self, more: int) -> None:
        """Count ``more`` bytes; any thread may."""
        with self._lock:
            self._done += more
            self._bar.update(more)
            if self._shown and self._bar.disable and time.monotonic() >= self._line_due:
                self._line_due = time.monotonic() + LINE_SECONDS
                share = 100 * self._done / max(1, self._total)
                print(f"{self._what}: {gigabytes(self._done)}, {share:.0f} %", flush=True)


def gigabytes(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
