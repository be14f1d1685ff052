"""The paper's 256 workers as 256 processes, on whatever machine this is."""

from __future__ import annotations

import pytest
from programs.one_of_many import assert_they_split_an_epoch
from support.launching import PROGRAMS, REPOSITORY, launch

pytestmark = pytest.mark.long


def test_256_ranks_split_an_imagenet_epoch_and_agree_on_every_rate(tmp_path):
    ended = launch(
        [str(PROGRAMS / "one_of_many.py"), "--output", str(tmp_path)],
        by="mpirun",
        ranks=256,
        quick=False,  # each would copy of the server what it changes
        PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe",  # Open MPI 5
        OMPI_MCA_rmaps_base_oversubscribe="1",  # Open MPI 4
        PYTHONPATH=str(REPOSITORY),
    )
    assert ended.code == 0, ended.output[-3000:]
    assert_they_split_an_epoch(tmp_path, 256)
