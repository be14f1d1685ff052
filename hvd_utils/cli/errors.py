"""Errors that end a run with one line on rank 0, and the exit codes of all ranks."""

from __future__ import annotations

EXIT_FAILED = 1  # an unexpected error: a bug, or a machine that broke
EXIT_BAD_INPUT = 2  # what the user gave cannot work; a restart would not mend it
EXIT_HANGS = 3  # no step was finished for too long; a restart may help
EXIT_RESUME = 75  # asked to stop; everything is saved: start the same command again


class BadInput(Exception):
    """Something the user gave cannot work; the text names it and the remedy, in one line."""


class Stopped(Exception):
    """The job was asked to stop and has saved. The text says how to resume. Raised by all ranks."""
