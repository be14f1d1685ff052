"""Which ends of a job are followed by another start, and how often."""

from __future__ import annotations

import json

import pytest

from hvd_utils.cli.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_HANGS, EXIT_RESUME
from hvd_utils.inspect.requeue import Ended, Restarts, finished, judge


def ended(code: int, *, told: bool = False, finished: bool = False, step: int = 0) -> Ended:
    return Ended(code, told, finished, step)


@pytest.mark.parametrize("told", [False, True])
def test_a_finished_run_is_done(told):
    assert judge(ended(0, finished=True, told=told, step=9), Restarts(), 3).code == 0


def test_a_finished_run_that_is_prolonged_is_done_when_its_new_end_is_there():
    """Told to stop before it began, its log ends with the ``end`` of the earlier launch."""
    told = judge(ended(EXIT_RESUME, finished=True, told=True, step=9), Restarts(step=9), 3)
    assert told.code == EXIT_RESUME
    wrong = judge(ended(EXIT_BAD_INPUT, finished=True, told=True, step=9), Restarts(step=9), 3)
    assert wrong.code == EXIT_BAD_INPUT
    killed_at_the_end = judge(ended(138, finished=True, told=True, step=9), Restarts(), 3)
    assert killed_at_the_end.code == 0


@pytest.mark.parametrize("code", [EXIT_BAD_INPUT, 130, 213])
def test_what_a_restart_cannot_mend_is_never_started_again(code):
    verdict = judge(ended(code, step=9, told=True), Restarts(), 3)
    assert verdict.code == code
    assert f"not started again: code {code}" in verdict.reason


@pytest.mark.parametrize("code", [0, EXIT_FAILED, EXIT_HANGS, EXIT_RESUME, 137])
def test_without_progress_the_restarts_are_limited(code):
    restarts = Restarts(step=5)
    for count in (1, 2):
        verdict = judge(ended(code, step=5), restarts, 2)
        assert verdict.code == EXIT_RESUME
        assert f"from step 5, {count} of 2 without a new checkpoint" in verdict.reason
        restarts = verdict.restarts
    last = judge(ended(code, step=5), restarts, 2)
    assert last.code == (code if code not in (0, EXIT_RESUME) else EXIT_FAILED)
    assert "not started again" in last.reason
    assert last.restarts == Restarts(step=5)  # whoever starts it again has all restarts again


def test_progress_resets_the_count():
    assert judge(ended(1, step=6), Restarts(3, step=5), 3).restarts == Restarts(1, step=6)


def test_a_job_told_to_stop_that_saved_is_started_again_even_without_restarts_for_failures():
    verdict = judge(ended(EXIT_RESUME, step=6), Restarts(0, step=5), 0)
    assert (verdict.code, verdict.restarts) == (EXIT_RESUME, Restarts(0, step=6))


def test_success_without_an_end_in_the_log_is_a_lost_host():
    verdict = judge(ended(0, step=6), Restarts(), 3)
    assert verdict.code == EXIT_RESUME
    assert "a host may be lost" in verdict.reason


@pytest.mark.parametrize(
    ("events", "expected"), [(None, False), (["start", "end"], True), (["end", "start"], False)]
)
def test_a_run_is_finished_if_its_log_ends_with_the_end(tmp_path, events, expected):
    if events:
        lines = [json.dumps({"event": event}) + "\n" for event in events]
        (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert finished(tmp_path) is expected
