"""One cluster for all tests of Slurm."""

from __future__ import annotations

import pytest
from support.slurm_cluster import start_cluster, why_not


@pytest.fixture(scope="session")
def cluster():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with start_cluster() as started:
        yield started
