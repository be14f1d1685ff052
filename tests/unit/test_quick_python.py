"""A process that the tests' server forks is as one that was started: see python_server.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.launching import launch
from support.quick_python import forked_for, quick_python

FACTS = """
import json, os, sys
print(json.dumps([sys.argv, sys.path[:2], __name__, os.getcwd(), dict(os.environ), os.umask(0)]))
"""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Have processes forked on a machine with a GPU too: none of these uses it."""
    monkeypatch.setattr("support.quick_python.GPU", Path("/nowhere"))


def facts(*command: object, **options) -> list:
    printed = []
    for quick in (True, False):
        ended = launch([*map(str, command)], by="python", quick=quick, **options)
        assert ended.code == 0, ended.output
        printed.append(json.loads(ended.output))
    ours, real = printed
    for environment in (ours[4], real[4]):
        environment.pop("PYTHON_SERVER", None)
    assert ours == real
    return ours


@pytest.mark.parametrize("how", ["file", "-c", "-m"])
def test_it_has_what_a_started_one_has(tmp_path, how):
    (tmp_path / "facts.py").write_text(FACTS)
    command = {"file": ["facts.py"], "-c": ["-c", FACTS], "-m": ["-m", "facts"]}[how]
    argv, path, name, folder, environment, umask = facts(
        *command, "a b", "--c", cwd=tmp_path, ODD="ä\n=", PYTHONPATH=str(tmp_path / "first")
    )
    assert argv[1:] == ["a b", "--c"]
    assert str(tmp_path / "first") in path
    assert (name, folder, environment["ODD"], umask) == ("__main__", str(tmp_path), "ä\n=", 0o22)


@pytest.mark.parametrize(
    ("program", "code", "printed"),
    [
        ("print(5)", 0, "5\n"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("import sys; sys.exit(-2)", 254, ""),
        ("import os; os._exit(75)", 75, ""),
        ("import os; os.kill(os.getpid(), 15)", -15, ""),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
        ("import os; os.abort()", -6, ""),
        ("import atexit; atexit.register(print, 'last')", 0, "last\n"),
    ],
)
def test_it_ends_as_a_started_one(program, code, printed):
    for quick in (True, False):
        ended = launch(["-c", program], by="python", quick=quick)
        assert (ended.code, ended.output) == (code, printed)


def test_what_cannot_be_written_at_the_end_is_a_failure():
    program = "import sys; sys.stdout = open('/dev/full', 'w'); print(5)"
    for quick in (True, False):
        ended = launch(["-c", program], by="python", quick=quick)
        assert ended.code == 120
        assert "No space left on device" in ended.output


def test_an_error_has_its_traceback():
    ended = launch(["-c", "def f():\n    1 / 0\nf()"], by="python")
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.output
    assert 'File "<string>", line 2, in f' in ended.output


def test_what_one_does_to_itself_does_not_reach_the_next():
    spoil = "import torch, os, numpy; torch.set_default_dtype(torch.float64); os.environ['X'] = '1'"
    look = "import torch, os; print(torch.get_default_dtype(), os.environ.get('X'))"
    assert launch(["-c", spoil], by="python").code == 0
    assert launch(["-c", look], by="python").output == "torch.float32 None\n"


def test_each_draws_random_numbers_of_its_own():
    draw = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (launch(["-c", draw], by="python").output.split() for _ in range(2))
    assert not set(first) & set(second)


def test_nothing_of_this_project_is_there_before_it_is_imported():
    look = "import sys; print([m for m in sys.modules if m.startswith(('hvd_utils', 'dali_p'))])"
    assert launch(["-c", look], by="python").output == "[]\n"


def test_it_keeps_to_the_cores_of_its_client():
    look = "import os; print(sorted(os.sched_getaffinity(0)))"
    core = min(os.sched_getaffinity(0))
    started = subprocess.run(
        ["taskset", "-c", str(core), *quick_python(), "-c", look], capture_output=True, text=True
    )
    assert started.stdout == f"[{core}]\n", started.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 5), (signal.SIGKILL, -9)])
def test_signals_reach_it(tmp_path, number, code):
    """SIGKILL ends it too, though its client cannot pass it on."""
    note = tmp_path / "pid"
    program = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        f"pathlib.Path({str(tmp_path / 'new')!r}).write_text(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'new')!r}, {str(note)!r})\n"
        "time.sleep(600)\n"
    )
    client = subprocess.Popen([*quick_python(), "-c", program])
    await_(note.exists)
    there = psutil.Process(int(note.read_text()))
    assert forked_for(psutil.Process(client.pid)) == there
    client.send_signal(number)
    assert client.wait(60) == code
    await_(lambda: not there.is_running())


def test_nothing_outlives_the_process_that_started_the_server(tmp_path):
    """However it ends."""
    note = tmp_path / "pids"
    job = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    program = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})
os.environ.pop("PYTHON_SERVER", None)
from support.quick_python import quick_python
subprocess.Popen([*quick_python(), "-c", {job!r}])
while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read():
    time.sleep(0.05)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == -9
    pid = int(note.read_text())
    await_(lambda: ended(pid))


def test_where_there_is_a_gpu_each_python_is_started(monkeypatch, tmp_path):
    """A forked process could not use a GPU that the server had opened."""
    monkeypatch.setattr("support.quick_python.GPU", tmp_path)
    assert quick_python() == [sys.executable]


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "HOROVOD_CYCLE_TIME", "HF_HOME", "LC_ALL"])
def test_what_is_read_at_the_start_has_a_real_start(name):
    assert quick_python([name]) == [sys.executable]
    assert quick_python(["PYTHONPATH", "ODD"]) != [sys.executable]


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead below a parent that does not ask: pytest as process 1."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def await_(happened) -> None:
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)
