"""Processes that are measured do not outlive the benchmark."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.harness.processes import REPOSITORY, Failed, finish, python

MEASURED = ("-c", "import time; time.sleep(600)")
BENCHMARK = f"""
from benchmarks.harness.processes import finish, python
from hvd_utils.cli.run_main import run_main
run_main(lambda: finish(python(*{MEASURED})))
"""


def test_one_told_to_stop_ends_what_it_measures():
    benchmark = subprocess.Popen(
        [sys.executable, "-c", BENCHMARK], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    )
    measured = []
    try:
        limit = time.monotonic() + 20
        while not (measured := psutil.Process(benchmark.pid).children()):
            assert time.monotonic() < limit
            time.sleep(0.05)
        benchmark.terminate()
        assert benchmark.communicate(timeout=120)[1] == "error: interrupted\n"
        assert benchmark.returncode == 130
        _, alive = psutil.wait_procs(measured, timeout=60)
        assert not alive
    finally:
        benchmark.kill()
        benchmark.wait()
        for process in filter(psutil.Process.is_running, measured):
            process.kill()


def test_one_that_takes_too_long_is_ended():
    with pytest.raises(Failed, match="not finished in time"):
        finish(python(*MEASURED), timeout=1)


def test_signals_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    finish(python("-c", ""))
    assert signal.getsignal(signal.SIGTERM) is before
