"""What is wrong with a command line is told in one line, by every command."""

from __future__ import annotations

import re

import pytest

from hvd_utils.cli.checkout import ROOT
from hvd_utils.cli.errors import BadInput
from hvd_utils.inspect import track
from hvd_utils.weights import export


def test_a_wrong_option_is_told_in_one_line(monkeypatch):
    with pytest.raises(BadInput, match="argument --to: invalid choice: 'onnxx'"):
        export.main(["run", "--to", "onnxx"])
    monkeypatch.setattr("sys.argv", ["track", "run", "tensorboard"])
    with pytest.raises(BadInput, match="invalid choice: 'tensorboard'"):
        track.main()


def test_all_commands_use_the_one_parser():
    """But processes that a benchmark starts itself."""
    made = re.compile(r"argparse\.ArgumentParser\(")
    others = {
        path.name
        for package in ("hvd_utils", "dali_pipeline")
        for path in (ROOT / package).rglob("*.py")
        if made.search(path.read_text(encoding="utf-8"))
    }
    assert others <= {"growth.py"}
