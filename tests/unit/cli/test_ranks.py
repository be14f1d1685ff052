"""Processes that a launcher started and Horovod did not find."""

from __future__ import annotations

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import SIZE_VARIABLES, require_together


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*SIZE_VARIABLES, "HOROVOD_SIZE", "HOROVOD_ELASTIC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", SIZE_VARIABLES)
def test_a_launcher_that_does_not_start_horovod_is_told(monkeypatch, name):
    """As torchrun, another MPI's mpirun, or srun without PMIx: each process would train alone."""
    require_together(1)
    monkeypatch.setenv(name, "1")
    require_together(1)
    monkeypatch.setenv(name, "8")
    require_together(8)
    with pytest.raises(BadInput, match=rf"8 processes were started \({name}\), but Horovod finds"):
        require_together(1)


@pytest.mark.parametrize(
    "inner", [{"OMPI_COMM_WORLD_SIZE": "1"}, {"HOROVOD_SIZE": "1"}, {"HOROVOD_ELASTIC": "1"}]
)
def test_the_inner_launcher_counts(monkeypatch, inner):
    """Within a step of Slurm that has several tasks."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    for name, value in inner.items():
        monkeypatch.setenv(name, value)
    require_together(1)
