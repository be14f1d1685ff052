"""Unit tests run in one process, which is a Horovod world of one."""

import horovod.torch as hvd
import pytest


@pytest.fixture(scope="session", autouse=True)
def horovod():
    hvd.init()
