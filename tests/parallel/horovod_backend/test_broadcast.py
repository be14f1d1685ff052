"""Objects of any length reach all ranks, in pieces that Horovod and MPI can count."""

from __future__ import annotations

import pytest
from support.launching import launch

PROGRAM = """
import horovod.torch as hvd, torch
from hvd_utils.horovod_backend import broadcast
hvd.init()
broadcast.PIECE = 1000
for length in (0, 1, 999, 1000, 1001, 123_456):
    for root in range(hvd.size()):
        expected = torch.arange(length).to(torch.uint8)
        mine = expected.clone() if hvd.rank() == root else None
        assert torch.equal(broadcast.broadcast_bytes(mine, root, "test"), expected)
value = {"names": [str(i) for i in range(2000)], "none": None, "weights": torch.ones(300)}
got = broadcast.broadcast_object(value if hvd.rank() == 1 else None, 1, "test")
assert got["names"] == value["names"] and got["none"] is None
assert torch.equal(got["weights"], value["weights"])
"""


@pytest.mark.parametrize("by", ["mpirun", "gloo"])
def test_what_is_longer_than_a_piece_arrives_whole(by):
    ended = launch(["-c", PROGRAM], ranks=2, by=by)
    assert ended.code == 0, ended.output
