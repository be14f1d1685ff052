"""On a CPU Horovod's thread sleeps: with nothing to sum, and while a rank is waited for."""

from __future__ import annotations

import json

import pytest
from support.launching import launch

pytestmark = pytest.mark.long

PROGRAM = """
import json, os, time
from hvd_utils.horovod_backend.environment import prepare
from hvd_utils.config.settings import Settings
prepare(Settings(recipe="test"), cuda=False)
from hvd_utils.horovod_backend.world import start_world
world = start_world("cpu")

def times_asleep():
    total = 0
    for task in os.listdir("/proc/self/task"):
        for line in open(f"/proc/self/task/{task}/status"):
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total

for step in range(2):  # the first also makes Horovod's tables
    asleep, busy = times_asleep(), time.process_time()
    if world.rank == 1:
        time.sleep(3)
    asleep = times_asleep() - asleep
    assert world.sum([1.0], name="together") == 2
    busy = time.process_time() - busy
print("seen", json.dumps([world.rank, asleep, busy]), flush=True)
"""


@pytest.mark.parametrize("by", ["mpi", "gloo"])
def test_neither_an_idle_rank_nor_one_that_waits_keeps_a_core(by):
    ended = launch(["-c", PROGRAM], ranks=2, by=by, quick=False)
    assert ended.code == 0, ended.output
    told = [line.split("seen ")[1] for line in ended.output.splitlines() if "seen " in line]
    (_, _, waiting), (_, looked, _) = sorted(map(json.loads, told))
    assert waiting < 1.5  # of 3 seconds; with MPI's polling it is all of them
    assert looked < 1500  # in 3 seconds; Horovod's default is to look every millisecond
