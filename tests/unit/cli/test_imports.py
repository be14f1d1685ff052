"""Importing: without collections of garbage, and where there is nothing to import."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from support.launching import REPOSITORY

from hvd_utils.cli.errors import EXIT_BAD_INPUT
from hvd_utils.cli.imports import quick_imports


def test_garbage_is_collected_again_afterwards(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "imported_quickly.py").write_text("import gc\nCOLLECTS = gc.isenabled()\n")
    with quick_imports():
        import imported_quickly
    assert not imported_quickly.COLLECTS
    assert gc.isenabled()


def test_a_second_time_nothing_is_kept_from_collection(monkeypatch):
    """As when elastic workers begin anew: what is garbage by then has to go."""
    freezes = []  # counted: how many objects are frozen also changes as threads drop some
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append("frozen"))
    with quick_imports():
        import gc as known  # noqa: F401
    assert not freezes


@pytest.mark.parametrize(
    "command", ["train_imagenet.py", "-m hvd_utils.status x", "-m dali_pipeline.prepare x"]
)
def test_a_python_without_the_packages_is_told_to_be_activated(command):
    """As where .venv/bin/activate was forgotten; ``-S`` leaves site-packages out."""
    ended = subprocess.run(
        [sys.executable, "-S", *command.split()], cwd=REPOSITORY, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert ended.returncode == EXIT_BAD_INPUT
    assert "has no PyTorch: run make setup, then source .venv/bin/activate" in ended.stderr
    assert ended.stderr.count("\n") == 1
