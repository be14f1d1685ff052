"""Horovod's thread gives way to those that compute."""

from __future__ import annotations

import json

import pytest
from helpers import launch

from hvd_utils.give_way import NICENESS

PROGRAM = """
import json, os
from hvd_utils.world import start_world
world = start_world("cpu")
tasks = map(int, os.listdir("/proc/self/task"))
nice = {task: os.getpriority(os.PRIO_PROCESS, task) for task in tasks}
main = nice.pop(os.getpid())
print("nice", json.dumps([main, sorted(nice.values())]), flush=True)
world.sum([1.0], name="together")
"""


@pytest.mark.parametrize("by", ["mpi", "gloo"])
def test_horovods_thread_has_a_lower_priority_than_the_one_that_computes(by):
    ended = launch(["-c", PROGRAM], ranks=2, by=by, timeout=60)
    assert ended.code == 0, ended.output
    told = [
        json.loads(line.split("nice ")[1]) for line in ended.output.splitlines() if "nice " in line
    ]
    assert len(told) == 2
    for main, others in told:
        assert main < NICENESS
        assert NICENESS in others
