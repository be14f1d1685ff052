"""Two ranks that are pinned keep to cores of their own."""

from __future__ import annotations

import json
import os

import pytest
from support.launching import TINY, train

from hvd_utils.horovod_backend.affinity import parse_cpulist, read_cores


def test_two_pinned_ranks_share_no_core(tiny_data, tmp_path):
    allowed = os.sched_getaffinity(0)
    if len(read_cores(allowed)) < 2:
        pytest.skip("there is one core only")
    options = ("--data", tiny_data, "--output", tmp_path, *TINY, "--max-steps", "1", "--pin")
    ended = train(*options, ranks=2)
    assert ended.code == 0, ended.output
    assert ended.output.count("pinned 2 of 2 processes to their share of cores") == 1
    facts = json.loads((tmp_path / "environment.json").read_text())
    first, second = (parse_cpulist(rank["cpus"]) for rank in facts["ranks"])
    assert first
    assert second
    assert first | second == allowed
    assert first.isdisjoint(second)
    assert facts["cores_per_process"] == len(first)
    assert [rank["gpu"] is None for rank in facts["ranks"]] == [facts["devices"] == ["cpu"]] * 2
