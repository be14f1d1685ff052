"""The paper's 256 workers as 256 real MPI ranks, on whatever machine this is."""

from __future__ import annotations

import pytest
from support.launching import PROGRAMS, REPOSITORY, launch

pytestmark = pytest.mark.long

SHARDS = PROGRAMS / "shards.py"


def test_256_ranks_split_an_imagenet_epoch_and_agree_on_every_rate():
    """Waiting ranks yield the core, or 256 of them would stop a small machine."""
    ended = launch(
        [str(SHARDS)],
        by="mpirun",
        ranks=256,
        timeout=1200,
        OMPI_MCA_mpi_yield_when_idle="1",
        OPENBLAS_NUM_THREADS="1",  # or every rank starts a thread per core
        PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe",  # Open MPI 5
        OMPI_MCA_rmaps_base_oversubscribe="1",  # Open MPI 4
        PYTHONPATH=str(REPOSITORY),
    )
    assert ended.code == 0, ended.output[-3000:]
    assert "256 ranks: 1281167 images once each, 14075 rates agree" in ended.output
