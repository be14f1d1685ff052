"""Importing without collections of garbage."""

from __future__ import annotations

import gc

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
