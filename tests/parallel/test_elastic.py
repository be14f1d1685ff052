"""Processes are lost and join while a job runs: it goes on, and ends as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from elastic_job import HOSTS, ElasticJob
from helpers import launch

TOY = str(Path(__file__).with_name("elastic_toy.py"))
STEPS = 80


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("alone")
    ended = launch([TOY, str(output), str(STEPS)], by="python")
    assert ended.code == 0, ended.output
    return torch.load(output / "end.pt")


def start(output: Path, hosts, dies: str = "none") -> ElasticJob:
    pace = {"TOY_SECONDS_PER_STEP": "0.2"}
    return ElasticJob(output, hosts, [TOY, str(output), str(STEPS), dies], **pace)


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


@pytest.mark.parametrize("number", [0, 1])
def test_the_other_goes_on_and_a_new_host_joins(tmp_path, undisturbed, number):
    """Whichever of the two is killed, one of them is rank 0."""
    killed, survivor, new = HOSTS[number], HOSTS[1 - number], HOSTS[2]
    with start(tmp_path, HOSTS[:2]) as job:
        job.wait_until(lambda: len(steps(tmp_path, killed)) > 10, 60)
        job.kill(killed)
        job.wait_until(lambda: last_size(tmp_path, survivor) == 1, 30)
        job.add(new)
        job.wait_until(lambda: last_size(tmp_path, new) == 2, 60)
        assert job.finish(120) == 0, job.output
    made = [step["step"] for step in steps(tmp_path, survivor)]
    assert made == list(range(1, STEPS + 1))  # none twice, none left out
    check_end(tmp_path, undisturbed)


@pytest.mark.parametrize("place", ["start", "recalled"])
def test_one_dies_while_they_recover_from_another(tmp_path, undisturbed, place):
    killed, second, survivor = HOSTS
    with start(tmp_path, HOSTS, dies=f"{place}@{second}") as job:
        job.wait_until(lambda: len(steps(tmp_path, killed)) > 10, 90)
        job.kill(killed)
        job.wait_until(lambda: last_size(tmp_path, survivor) == 1, 30)
        assert job.finish(120) == 0, job.output
    check_end(tmp_path, undisturbed)


def test_a_new_host_that_cannot_start_is_left_out(tmp_path, undisturbed):
    """The others notice by Gloo's timeout, 30 s."""
    with start(tmp_path, HOSTS[:2], dies=f"launch@{HOSTS[2]}") as job:
        job.wait_until(lambda: len(steps(tmp_path, HOSTS[0])) > 10, 60)
        job.add(HOSTS[2])
        assert job.finish(180) == 0, job.output
    assert not steps(tmp_path, HOSTS[2])
    check_end(tmp_path, undisturbed)


def test_all_recall_the_state_of_the_furthest(tmp_path):
    """Ranks 0, 1, 2 remember nothing, step 5 and step 4."""
    script = tmp_path / "recall.py"
    script.write_text("""
import horovod.torch as hvd, torch
from hvd_utils.elastic import Memory
hvd.init()
memory = Memory()
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
