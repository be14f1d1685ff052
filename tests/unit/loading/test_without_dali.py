"""Where neither extra was installed, one line names both."""

from __future__ import annotations

import importlib
import sys

import pytest

from hvd_utils.cli.errors import BadInput


def test_a_missing_dali_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "dali_pipeline.loading.dali", raising=False)
    with pytest.raises(BadInput, match=r"DALI is not installed.*\[cuda13\].*\[cuda12\]"):
        importlib.import_module("dali_pipeline.loading.dali")
