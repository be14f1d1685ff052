"""The processes of a node load at once, and one of them says what they load together."""

import json

import pytest
from support.launching import launch

pytestmark = pytest.mark.long


def test_the_rates_of_all_ranks_are_added_up(tiny_data, tmp_path):
    command = ["-m", "dali_pipeline.benchmark", "--data", tiny_data, "--json", tmp_path / "rates"]
    command += ["--batch", 8, "--device", "cpu", "--rounds", 1, "--seconds", 0.1]
    done = launch([*map(str, command)], ranks=2)
    assert done.code == 0, done.output
    assert done.output.count("ours/this") == 1
    assert "2 processes of " in done.output
    figures = json.loads((tmp_path / "rates").read_text())
    assert set(figures["images_per_second"]) == {"full"}  # peers are for one process
    assert figures["ratios"] == {}
