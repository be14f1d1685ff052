"""Work is shared by processes, and one that fails or dies is told as a failure."""

import os
import signal

import pytest

from dali_pipeline.preparation.parallel import parallel_map
from hvd_utils.cli.errors import BadInput


def fail_on_three(number: int) -> int:
    if number == 3:
        raise BadInput("three is bad")
    return number


def end_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_many_processes_give_results_in_order_and_failures():
    assert list(parallel_map(fail_on_three, [5, 1, 2], 2)) == [5, 1, 2]
    with pytest.raises(BadInput, match="three is bad"):
        list(parallel_map(fail_on_three, [1, 3, 2], 2))
    with pytest.raises(BadInput, match="a process was killed, perhaps for memory"):
        list(parallel_map(end_on_three, [1, 3, 2], 2))
