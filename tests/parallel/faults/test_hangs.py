"""A rank that hangs, asleep in Python or stopped, is named, and nobody is left."""

from __future__ import annotations

import pytest
from support.endings import assert_nobody_is_left
from support.launching import PROGRAMS, REPOSITORY, launch

from hvd_utils.cli.errors import EXIT_HANGS

pytestmark = pytest.mark.long

PROGRAM = str(PROGRAMS / "watched.py")


@pytest.mark.parametrize("by", ["mpi", "gloo"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("sleeps", "hangs: reading images at step 10; start it again"),
        ("stops", "hangs: not heard of for"),
    ],
    ids=["sleeps", "stops"],
)
def test_a_rank_that_hangs_is_named_and_all_end(tmp_path, by, how, words):
    command = [PROGRAM, str(tmp_path), "4", "1", how]
    ended = launch(
        command, ranks=3, by=by, timeout=240, quick=how == "sleeps", PYTHONPATH=str(REPOSITORY)
    )
    lines = [line for line in ended.output.splitlines() if "error: " in line]
    assert len(lines) == 1, ended.output
    assert "no step was finished for 4 s: rank 1 (" in lines[0]
    assert words in lines[0]
    assert ended.code == EXIT_HANGS, ended.output
    assert_nobody_is_left(tmp_path)
