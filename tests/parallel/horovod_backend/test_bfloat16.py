"""Our build of Horovod sums bfloat16, rounded to the nearest."""

from __future__ import annotations

import pytest
from support.launching import launch

PROGRAM = """
import horovod.torch as hvd, torch
hvd.init()
torch.manual_seed(hvd.rank())
part = torch.randn(10_007).bfloat16()
parts = hvd.allgather(part.float()[None])
assert parts.shape == (2, 10_007) and not torch.equal(parts[0], parts[1])
alone = hvd.allreduce(part, op=hvd.Sum)
assert torch.equal(alone, parts.sum(0).bfloat16())
assert torch.equal(hvd.grouped_allreduce([part, part[:7]], op=hvd.Sum)[0], alone)
for op, combined in [
    (hvd.Min, parts.amin(0)), (hvd.Max, parts.amax(0)), (hvd.Product, parts.prod(0)),
]:
    assert torch.equal(hvd.allreduce(part, op=op), combined.bfloat16()), op
corners = torch.tensor([float("inf"), float("nan"), 3e38, 1.0]).bfloat16()
total = hvd.allreduce(corners, op=hvd.Sum)
assert total.isinf().tolist() == [True, False, True, False]
assert total.isnan().tolist() == [False, True, False, False] and total[3] == 2
print("all right", flush=True)
"""


@pytest.mark.parametrize("by", ["mpi", "gloo"])
def test_sums_are_rounded_to_the_nearest(by):
    ended = launch(["-c", PROGRAM], ranks=2, by=by)
    assert ended.code == 0, ended.output
    assert ended.output.count("all right") == 2
