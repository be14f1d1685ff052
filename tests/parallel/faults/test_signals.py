"""Real processes that are told to stop by real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import psutil
import pytest

from hvd_utils.cli.errors import EXIT_RESUME, Stopped
from hvd_utils.cli.ranks import RANK_VARIABLES
from hvd_utils.faults.signals import LAUNCHER_DIED, SIGNALS, StopRequest

LIMIT = 120  # seconds: what does not happen until then does not happen

HEAD = "import ctypes, os, signal, sys, time\nfrom hvd_utils.faults.signals import StopRequest\n"
# A wait in C, to which the signal handlers of Python never come: they run after it, if ever.
BLOCKED = "select = ctypes.CDLL(None).poll\nwhile True: select(None, 0, 1000)\n"


@contextlib.contextmanager
def started(program: str, **environment: str) -> Iterator[subprocess.Popen]:
    """Run a program that makes a StopRequest ``stop`` first, from when it says it is ready."""
    code = f"{HEAD}stop = StopRequest()\nprint('ready', flush=True)\n{textwrap.dedent(program)}"
    clean = {k: v for k, v in os.environ.items() if k not in RANK_VARIABLES}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean | environment,
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


WAITING = """
while not stop.requested:
    time.sleep(0.01)
print(stop.signal_name, 0 <= stop.seconds_ago < 20)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_sets_the_flag_and_nothing_else(number):
    with started(WAITING) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, output, errors) == (0, f"{number.name} True\n", "")


def test_nothing_is_requested_before():
    with StopRequest() as stop:
        assert (stop.requested, stop.signal_name, stop.seconds_ago) == (False, None, None)


def test_the_first_signal_is_the_one_that_counts():
    program = "while not stop.requested: time.sleep(0.01)\nprint('told', flush=True)\n"
    program += "signal.sigwait([signal.SIGUSR2])\nprint(stop.signal_name)"
    program = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n" + program
    with started(program) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR2)
        assert process.communicate(timeout=LIMIT)[0] == "SIGTERM\n"


def test_a_second_ctrl_c_ends_a_process_that_is_blocked_in_c():
    with started(BLOCKED) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (130, "error: interrupted\n")


def test_other_signals_however_many_do_not_end_it():
    with started(BLOCKED) as process:
        for number in [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM]:
            process.send_signal(number)
            time.sleep(0.2)
        time.sleep(0.5)
        assert process.poll() is None


ACTING = f"stop.if_ignored(SECONDS, lambda: os._exit({EXIT_RESUME}))\n"


def test_the_action_comes_when_the_request_is_ignored():
    with started(ACTING.replace("SECONDS", "1.0") + BLOCKED) as process:
        time.sleep(2)
        assert process.poll() is None  # nothing was requested yet
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=LIMIT)
    assert process.returncode == EXIT_RESUME
    assert time.monotonic() - told > 0.9


def test_a_job_that_stops_in_time_does_not_see_the_action():
    program = "stop.if_ignored(1.0, lambda: print('acted', flush=True))\n"
    program += WAITING + "stop.close()\ntime.sleep(2)"
    with started(program) as process:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT)
    assert (process.returncode, output) == (0, "SIGTERM True\n")


def test_an_action_that_hangs_leaves_the_second_ctrl_c_working():
    with started("stop.if_ignored(0.0, lambda: time.sleep(999))\n" + BLOCKED) as process:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(1.5)
        assert process.wait(timeout=LIMIT) == 130


# Starts a rank that notes in a file what told it to stop, and then dies like a killed launcher.
LAUNCHER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
os._exit(9)
"""


@pytest.mark.parametrize("variable", [*RANK_VARIABLES, None])
def test_a_rank_whose_launcher_died_is_told_to_stop(tmp_path, variable):
    """And a program that nobody launched (nohup, and the shell is closed) goes on."""
    note = tmp_path / "note"
    rank = f"{HEAD}stop = StopRequest()\nprint('ready', flush=True)\nend = time.time() + 3\n"
    rank += "while not stop.requested and time.time() < end: time.sleep(0.01)\n"
    rank += f"open({str(note)!r}, 'w').write(str(stop.signal_name))"
    clean = {k: v for k, v in os.environ.items() if k not in RANK_VARIABLES}
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCHER, rank],
        env=clean | ({variable: "0"} if variable else {}),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    psutil.wait_procs(_processes(int(ended.stdout)), timeout=LIMIT)
    assert note.read_text() == (LAUNCHER_DIED if variable else "None")


def _processes(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def test_closing_brings_the_former_handlers_back_and_frees_its_descriptors():
    open_before = len(os.listdir("/proc/self/fd"))
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + LIMIT
        while not stop.requested and time.monotonic() < until:
            time.sleep(0.01)
        assert stop.signal_name == "SIGTERM"
    stop.close()  # once more does no harm
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert signal.set_wakeup_fd(-1) == -1
    assert len(os.listdir("/proc/self/fd")) == open_before
    with StopRequest() as second:
        assert not second.requested


def test_a_signal_that_comes_after_the_job_has_stopped_does_not_change_its_end():
    """Another rank's signal stopped it, and its own may come at any time."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with pytest.raises(Stopped), StopRequest():
            raise Stopped("saved")
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def test_processes_started_by_it_obey_their_signals_as_usual():
    program = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    time.sleep(0.5)
    child.terminate()
    print(child.wait(), stop.requested)
    """
    with started(program) as process:
        assert process.communicate(timeout=LIMIT)[0] == "-15 False\n"
