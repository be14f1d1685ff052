"""A rank that hangs is named once, and every rank ends; a rank that goes on is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hvd_utils.cli.errors import EXIT_HANGS
from hvd_utils.faults.hang_diagnosis import diagnose
from hvd_utils.faults.heartbeat import (
    COMPILING,
    FINISHED,
    WAITING,
    Heartbeat,
    heartbeat_path,
    read_heartbeats,
)
from hvd_utils.faults.watchdog import Watchdog

pytestmark = pytest.mark.long

REMEDY = "see the README"
LIMIT = 240  # seconds, generous: a rank ends after about 10

# A rank without Horovod: what it does at step 1 is given to it.
RANK = """
import ctypes, sys, time
from pathlib import Path
from hvd_utils.faults.heartbeat import WAITING
from hvd_utils.faults.watchdog import Watchdog
folder, rank, size, timeout = Path(sys.argv[1]), *map(int, sys.argv[2:5])
watchdog = Watchdog(folder, rank, size, f"node{rank}", timeout, "see the README")
watchdog.start()
watchdog.beat(1, "computing")
"""
WAITS = f"watchdog.beat(1, {WAITING!r}); time.sleep(1000)"
READS = "watchdog.beat(1, 'reading images'); time.sleep(1000)"


class Ranks:
    """Processes that act as the ranks of one job."""

    def __init__(self, folders: list[Path], actions: list[str], timeout: int = 1) -> None:
        size = str(len(actions))
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", RANK + act, folder, str(rank), size, str(timeout)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, (folder, act) in enumerate(zip(folders, actions, strict=True))
        ]

    def await_reports(self, folder: Path) -> None:
        """Return once every rank has written a report."""
        end = time.monotonic() + LIMIT
        while len(read_heartbeats(folder, len(self.processes))) < len(self.processes):
            assert time.monotonic() < end
            time.sleep(0.05)

    def finish(self, *ranks: int) -> list[tuple[int, str]]:
        """Return exit codes and what was said, of these ranks or all, once they ended."""
        try:
            chosen = [self.processes[rank] for rank in ranks] or self.processes
            said = [process.communicate(timeout=LIMIT)[1] for process in chosen]
            return [(process.returncode, text) for process, text in zip(chosen, said, strict=True)]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()


def test_a_rank_that_hangs_is_named_by_the_lowest_other_and_all_end(tmp_path):
    first, *others = Ranks([tmp_path] * 4, [READS, WAITS, WAITS, WAITS]).finish()
    assert others[0] == (
        EXIT_HANGS,
        "error: no step was finished for 1 s: "
        f"rank 0 (node0) hangs: reading images at step 1; {REMEDY}\n",
    )
    assert first == others[1] == others[2] == (EXIT_HANGS, "")
    stacks = heartbeat_path(tmp_path, 0).with_suffix(".stacks").read_text()
    assert 'File "<string>"' in stacks  # the line where its main thread stands


def test_a_stopped_rank_is_not_heard_of(tmp_path):
    ranks = Ranks([tmp_path] * 3, [WAITS] * 3)
    ranks.await_reports(tmp_path)
    ranks.processes[1].send_signal(signal.SIGSTOP)
    ((code, said),) = ranks.finish(0)
    assert code == EXIT_HANGS
    assert "rank 1 (node1) hangs: not heard of for " in said
    assert said.count("\n") == 1


def test_a_rank_whose_own_call_holds_python_is_named_and_ends_itself_where_it_is_alone(tmp_path):
    holds = "time.sleep(.5); ctypes.PyDLL(None).sleep(1000)"
    ((code, said),) = Ranks([tmp_path] * 2, [WAITS, holds]).finish(0)
    assert code == EXIT_HANGS
    assert "rank 1 (node1) hangs: not heard of" in said
    ((code, said),) = Ranks([tmp_path], [holds]).finish()
    assert code == 1
    assert "Timeout" in said
    assert 'File "<string>"' in said


def test_where_all_wait_the_network_is_suspected(tmp_path):
    ((code, said),) = Ranks([tmp_path] * 2, [WAITS, WAITS]).finish(0)
    assert code == EXIT_HANGS
    assert "1 s: all ranks wait for one another: a network path may be cut; " in said


def test_ranks_that_do_not_see_one_another_accuse_nobody(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    for rank, (code, said) in enumerate(Ranks(folders, [WAITS, WAITS]).finish()):
        assert code == EXIT_HANGS
        assert f"cannot be told: rank {rank} (node{rank}) sees no report of rank {1 - rank}" in said
        assert "hangs:" not in said


def test_a_folder_that_cannot_be_written_saves_nobody(tmp_path):
    ((code, said),) = Ranks([Path("/dev/null/run")], [READS]).finish()
    assert code == EXIT_HANGS
    assert "rank 0 (node0) hangs: reading images at step 1" in said


def test_storage_that_hangs_does_not_hold_the_watchdog_up(tmp_path):
    """Opening a pipe that nobody reads blocks as a dead file server does."""
    ranks = tmp_path / "ranks"
    ranks.mkdir()
    os.mkfifo(ranks / "00000.tmp")
    ((code, said),) = Ranks([tmp_path], [READS]).finish()
    assert code == EXIT_HANGS
    assert f"the storage of {tmp_path} does not answer either; {REMEDY}\n" in said


def test_long_work_of_one_rank_and_one_that_is_done_are_no_hang(tmp_path):
    """Rank 0 validates alone for three timeouts; the others wait for it, or have ended."""
    works = "[(watchdog.beat(1, 'validating', i), time.sleep(.1)) for i in range(30)]; "
    waits = WAITS.replace("1000", "3.3") + "; "
    stop = "watchdog.stop()"
    ended = Ranks([tmp_path] * 3, [works + stop, waits + stop, stop]).finish()
    assert ended == [(0, "")] * 3
    assert {report.doing for report in read_heartbeats(tmp_path, 3).values()} == {FINISHED}


def test_a_compilation_is_no_hang(tmp_path):
    """One rank compiles for three timeouts, the other waits for it."""
    works = f"watchdog.beat(1, {COMPILING!r}); time.sleep(3); watchdog.beat(2, 'x'); "
    waits = WAITS.replace("1000", "3.3") + "; "
    stop = "watchdog.stop()"
    assert Ranks([tmp_path] * 2, [works + stop, waits + stop]).finish() == [(0, "")] * 2


def test_a_compilation_without_an_end_is_one(tmp_path):
    without = "from hvd_utils.faults import watchdog as module; module.COMPILE_SECONDS = 0.5; "
    action = f"{without}watchdog.beat(1, {COMPILING!r}); time.sleep(1000)"
    ((code, said),) = Ranks([tmp_path], [action]).finish()
    assert code == EXIT_HANGS
    assert "rank 0 (node0) hangs: compiling at step 1" in said


def test_a_job_that_was_suspended_goes_on(tmp_path):
    """As by a scheduler that stops all processes for a while: monotonic clocks go on meanwhile."""
    once = WAITS.replace("1000", "5") + "; watchdog.stop()"
    ranks = Ranks([tmp_path] * 2, [once, once], timeout=4)
    ranks.await_reports(tmp_path)
    for process in ranks.processes:
        process.send_signal(signal.SIGSTOP)
    time.sleep(6)
    for process in ranks.processes:
        process.send_signal(signal.SIGCONT)
    assert ranks.finish() == [(0, "")] * 2


def test_a_timeout_of_0_is_off_and_leaves_nothing(tmp_path):
    watchdog = Watchdog(tmp_path, 0, 1, "node0", 0, REMEDY)
    watchdog.start()
    watchdog.beat(1, "computing")
    watchdog.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_report_tells_people_where_a_rank_stands(tmp_path):
    watchdog = Watchdog(tmp_path, 3, 4, "node3", 100, REMEDY)
    watchdog.beat(17, "reading images")
    watchdog.start()
    watchdog.stop()
    report = json.loads((tmp_path / "ranks" / "00003.json").read_text())
    assert report["step"] == 17
    assert (report["host"], report["pid"], report["idle"]) == ("node3", os.getpid(), 0)
    assert abs(report["time"] - time.time()) < LIMIT


def test_telling_the_watchdog_costs_microseconds():
    watchdog = Watchdog(Path("/none"), 0, 1, "node0", 1, REMEDY)
    began = time.perf_counter()
    for step in range(100_000):
        watchdog.beat(step, "computing")
    assert time.perf_counter() - began < 1  # 10 µs each, where about 0.1 is usual


def report(rank: int, doing: str = WAITING, **values) -> Heartbeat:
    usual = {"host": f"node{rank}", "pid": 1, "number": 1, "step": 5, "count": 0, "idle": 300}
    return Heartbeat(rank=rank, doing=doing, **{**usual, **values})


def looks(*reports: Heartbeat, silent: tuple[int, ...] = ()) -> tuple[dict, dict]:
    """Two looks, in the second of which all but the silent ranks wrote a new report."""
    before = {r.rank: r for r in reports}
    return before, {
        rank: r if rank in silent else replace(r, number=r.number + 1) for rank, r in before.items()
    }


def test_clocks_of_hosts_are_not_compared():
    ahead = looks(report(0), report(1, time=1.0), report(2, time=1e12))
    assert diagnose(report(0), 3, *ahead, 300).reason.startswith("all ranks wait")
    stopped = looks(report(0), report(1, time=1.0), report(2, time=1e12), silent=(2,))
    verdict = diagnose(report(0, changed=500.0), 3, *stopped, 300)
    assert verdict.reason == (
        f"rank 2 (node2) hangs: not heard of for 500 s, last seen {WAITING} at step 5"
    )


def test_a_rank_that_goes_on_is_waited_for():
    assert diagnose(report(0), 2, *looks(report(0), report(1, idle=100)), 300) is None


def test_many_hanging_ranks_fit_in_a_line_and_one_of_them_speaks_where_all_hang():
    everyone = [report(rank, "reading images") for rank in range(256)]
    verdict = diagnose(everyone[7], 256, *looks(*everyone), 300)
    assert verdict.speaker == 0
    assert verdict.reason.endswith("rank 2 (node2) hangs: reading images at step 5, and 253 more")


@pytest.mark.parametrize(
    ("silent", "speaker"), [((0,), 1), ((1, 2), 0), ((0, 1, 2), 3), ((0, 1, 2, 3), 4)]
)
def test_the_lowest_rank_that_is_alive_and_not_accused_speaks(silent, speaker):
    both = looks(*map(report, range(5)), silent=silent)
    assert diagnose(report(4), 5, *both, 300).speaker == speaker
