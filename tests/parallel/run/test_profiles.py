"""A profile in the job: its files, and that it changes nothing."""

from __future__ import annotations

import json

import pytest
from support.launching import TINY, train

from hvd_utils.inspect.compare import differences, newest


@pytest.mark.long
def test_a_profile_of_a_resumed_run_has_every_rank_asked_for_and_changes_nothing(
    tiny_data, tmp_path
):
    """The same weights to the bit; two of three ranks, Horovod's timeline of those steps alone."""
    options = ("--data", tiny_data, *TINY, "--batch-per-worker", 2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(*options, "--output", whole, ranks=3).code == 0
    assert train(*options, "--output", parts, "--max-steps", 3, ranks=3).code == 0
    profiled = ("--profile", "3-5", "--profile-ranks", "0,2")
    ended = train(*options, "--output", parts, *profiled, ranks=3)
    assert ended.code == 0, ended.output
    folder = parts / "profile/steps-4-5"
    assert "profile: the run is past step 3: the trace begins after it" in ended.output
    assert f"profile: steps 4 to 5 in {folder}: rank-0.json.gz, rank-2.json.gz" in ended.output
    names = {path.name for path in folder.iterdir()}
    assert names == {"rank-0.json.gz", "rank-2.json.gz", "horovod.json"}
    events = json.loads((folder / "horovod.json").read_text())
    sums = [event for event in events if event.get("name") == "ALLREDUCE"]
    # Of a name that a step sums after its images are there; flags may be on their way before.
    name = "allreduce.batch_norm.statistics"
    these = [e["pid"] for e in events if e.get("args", {}).get("name") == name]
    assert len([event for event in sums if event["pid"] in these]) == 2  # one a step
    assert set(differences(newest(parts), newest(whole)).values()) == {0.0}


def test_ranks_that_are_not_there_end_the_job_in_one_line(tiny_data, tmp_path):
    options = ("--data", tiny_data, *TINY, "--output", tmp_path / "run")
    ended = train(*options, "--profile", "1-2", "--profile-ranks", "0,7", ranks=2)
    assert ended.code == 2
    assert "error: --profile-ranks 0,7: there are ranks 0 to 1" in ended.output
    assert "Traceback" not in ended.output
