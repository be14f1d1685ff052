"""Write metrics for TensorBoard; a failure to write does not end the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path


class TensorBoard:
    """Writes scalars below a run's ``tensorboard/``.

    ``print_line`` shows one line if that stops working.
    """

    def __init__(self, run: Path, step: int, print_line: Callable[[str], None]) -> None:
        """Begin at ``step``: what is there of later steps is not shown any more.

        Raises OSError if the folder cannot be written.
        """
        # Imported here: slow to load, and only one rank writes.
        from torch.utils.tensorboard import SummaryWriter

        self._print_line = print_line
        self._writer: SummaryWriter | None = None
        try:
            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step)
        except UnicodeEncodeError:
            print("warning: TensorBoard writes nothing below a name that is not UTF-8", flush=True)
        threading.excepthook = _without_the_writers_own(threading.excepthook)

    def scalars(self, step: int, group: str, **values: float) -> None:
        """Write values under ``group/name``."""
        self._try(
            lambda writer: [
                writer.add_scalar(f"{group}/{name}", value, step) for name, value in values.items()
            ]
        )

    def flush(self) -> None:
        """Have what was written shown."""
        self._try(lambda writer: writer.flush())

    def close(self) -> None:
        """Write the rest."""
        self._try(lambda writer: writer.close())
        self._writer = None

    def _try(self, write: Callable) -> None:
        if self._writer is None:
            return
        try:
            write(self._writer)
        except (OSError, ValueError) as error:  # ValueError: its file was closed by a failure
            self._writer = None
            self._print_line(f"warning: TensorBoard's files cannot be written any more: {error}")


def _without_the_writers_own(show: Callable) -> Callable:
    """Return ``show`` but for TensorBoard's thread, whose failure the next call raises again."""

    def hook(failed: threading.ExceptHookArgs) -> None:
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            show(failed)

    return hook
