"""Processes are lost and join while a job runs: it goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.elastic_job import HOSTS, ElasticJob
from support.kills import metrics
from support.launching import PROGRAMS, REPOSITORY, TINY, launch, train
from support.running_job import PACED

from hvd_utils.inspect.compare import differences, newest
from hvd_utils.run.event_log import METRICS, read_events

pytestmark = pytest.mark.long

JOB_OPTIONS = (*TINY, "--workers", "4", "--precision", "fp64", "--batch-per-worker", "2")
JOB_OPTIONS += ("--average", "ema", "--average-decay", "0.9")
JOB_OPTIONS += ("--epochs", "90", "--max-steps", "120", "--reference-rate", "0.0125")
DYING = str(PROGRAMS / "dying_job.py")
TOY = str(PROGRAMS / "elastic_toy.py")
STEPS = 80


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("alone")
    ended = launch([TOY, str(output), str(STEPS)], by="python")
    assert ended.code == 0, ended.output
    return torch.load(output / "end.pt")


def start(output: Path, hosts, dies: str = "none", **options) -> ElasticJob:
    command = [TOY, str(output), str(STEPS), dies]
    return ElasticJob(output, hosts, command, TOY_SECONDS_PER_STEP="0.1", **options)


def steps(output: Path, host: str) -> list[dict]:
    """The steps made on a host so far, with the size of their world."""
    path = output / f"{host}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == "step"]


def last_size(output: Path, host: str) -> int:
    made = steps(output, host)
    return made[-1]["size"] if made else 0


def check_end(output: Path, expected: dict) -> None:
    end = torch.load(output / "end.pt")
    assert end["step"] == STEPS
    assert end["loss"] == pytest.approx(expected["loss"], rel=1e-10)
    torch.testing.assert_close(end["averages"], expected["averages"], rtol=0, atol=1e-10)
    torch.testing.assert_close(end["model"], expected["model"], rtol=0, atol=1e-10)
    momentum = [state["optimizer"]["state"] for state in (end, expected)]
    torch.testing.assert_close(*momentum, rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def alone(tiny_data, tmp_path_factory) -> Path:
    """The job's run on one process, undisturbed."""
    output = tmp_path_factory.mktemp("job") / "run"
    ended = train(*JOB_OPTIONS, "--data", tiny_data, "--output", output, by="python")
    assert ended.code == 0, ended.output
    return output


def test_the_job_goes_on_without_a_killed_worker_and_with_a_new_one(tiny_data, tmp_path, alone):
    """The newcomer is told nothing: all that it needs, the survivor has."""
    killed, new, run = HOSTS[0], HOSTS[2], tmp_path / "run"

    def worlds() -> list[int]:
        return [e["processes"] for e in read_events(run) if e["event"] == "start"]

    def last_step() -> int:
        return max((e["step"] for e in read_events(run) if e["event"] == "step"), default=0)

    command = [PACED, "0.5", *JOB_OPTIONS, "--data", str(tiny_data), "--output", str(run)]
    # Each "host" takes all cores of this one machine.
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_WAIT_POLICY": "PASSIVE"}
    all_happened = tmp_path / "all happened"
    environment["PACED_UNTIL"] = str(all_happened)
    with ElasticJob(tmp_path, HOSTS[:2], command, gloo_timeout=120, **environment) as job:
        job.wait_until(lambda: (run / METRICS).exists() and last_step() > 5, 300)
        job.kill(killed)
        job.wait_until(lambda: worlds() == [2, 1], 300)
        step = last_step()
        job.wait_until(lambda: last_step() > step, 300)
        job.add(new)
        job.wait_until(lambda: worlds() == [2, 1, 2], 300)
        all_happened.touch()
        assert job.finish(300) == 0, job.output
    assert max(differences(newest(run), newest(alone)).values()) < 1e-10
    ours, theirs = metrics(run), metrics(alone)
    assert [event["step"] for event in ours] == [event["step"] for event in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.pop("event") == other.pop("event")
        assert mine == pytest.approx(other, rel=1e-10)


def test_a_process_that_dies_while_the_run_is_made_leaves_the_folder_free(tiny_data, tmp_path):
    """Rank 0 holds the lock of the run's folder by then, and takes it again in the next world."""
    run = tmp_path / "run"
    command = [DYING, HOSTS[1], *JOB_OPTIONS, "--max-steps", "5", "--data", str(tiny_data)]
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_WAIT_POLICY": "PASSIVE"}
    with ElasticJob(tmp_path, HOSTS[:2], [*command, "--output", str(run)], **environment) as job:
        assert job.finish(300) == 0, job.output
    assert "is in use by" not in job.output
    assert newest(run)["step"] == 5


def test_one_dies_while_they_recover_from_another(tmp_path, undisturbed):
    killed, second, survivor = HOSTS
    with start(tmp_path, HOSTS, dies=f"recalled@{second}") as job:
        job.wait_until(lambda: len(steps(tmp_path, killed)) > 10, 300)
        job.kill(killed)
        job.wait_until(lambda: last_size(tmp_path, survivor) == 1, 300)
        assert job.finish(300) == 0, job.output
    check_end(tmp_path, undisturbed)


def test_a_new_host_that_cannot_start_is_left_out(tmp_path, undisturbed):
    """The others notice by Gloo's timeout."""
    with start(tmp_path, HOSTS[:2], dies=f"launch@{HOSTS[2]}", gloo_timeout=15) as job:
        job.wait_until(lambda: len(steps(tmp_path, HOSTS[0])) > 10, 300)
        job.add(HOSTS[2])
        assert job.finish(300) == 0, job.output
    assert not steps(tmp_path, HOSTS[2])
    check_end(tmp_path, undisturbed)


def test_all_recall_the_state_of_the_furthest(tmp_path):
    """Ranks 0, 1, 2 remember nothing, step 5 and step 4."""
    script = tmp_path / "recall.py"
    script.write_text("""
import horovod.torch as hvd, torch
from hvd_utils.horovod_backend.elastic import ElasticState
hvd.init()
memory = ElasticState()
assert memory.recall() is None
step = (-1, 5, 4)[hvd.rank()]
if step >= 0:
    memory.keep(lambda: {"step": step, "weights": torch.full((3,), float(step))})
for _ in range(2):  # what was recalled is kept, whatever is done to the copy
    state = memory.recall()
    assert state["step"] == 5 and state["weights"].tolist() == [5, 5, 5], state
    state["weights"].zero_()
""")
    ended = launch([str(script)], ranks=3, by="gloo")
    assert ended.code == 0, ended.output
