"""A module that is found as wandb and misbehaves."""

from __future__ import annotations

from pathlib import Path

START = """
import os, signal, time
class Settings:
    def __init__(self, **options): pass
class Run:
    def define_metric(self, name, step_metric): pass
    def log(self, row, step): pass
    def finish(self): pass
def init(**options): return Run()
"""
HARM = {
    "raises at once": "def init(**options): raise ConnectionError('no such\\nserver')",
    "raises later": "Run.log = lambda self, row, step: 1 / 0",
    "hangs": "Run.log = lambda self, row, step: time.sleep(10**6)",
    "hangs at its end": "Run.finish = lambda self: time.sleep(10**6)",
    "dies": "Run.log = lambda self, row, step: os.kill(os.getpid(), signal.SIGKILL)",
    "cannot be imported": "raise ImportError('libsomething.so is missing')",
}


def write_fake_wandb(folder: Path, harm: str) -> None:
    """Write the module into a folder that goes first on PYTHONPATH."""
    (folder / "wandb.py").write_text(f"{START}{HARM[harm]}\n")
