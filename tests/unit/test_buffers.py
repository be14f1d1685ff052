"""Memory is used again when nobody holds it, and never before."""

import torch

from dali_pipeline.buffers import KEPT, Buffers


def test_a_batch_that_somebody_holds_keeps_its_memory():
    buffers = Buffers()
    held = [buffers.take((4, 3)).fill_(number) for number in range(2 * KEPT)]
    assert [batch.unique().tolist() for batch in held] == [[number] for number in range(2 * KEPT)]


def test_memory_that_nobody_holds_is_used_again():
    buffers = Buffers()
    addresses = {buffers.take((4, 3)).data_ptr() for _ in range(5)}
    assert len(addresses) == 1
    assert buffers.take((2, 3)).data_ptr() in addresses  # a smaller batch fits too
    assert buffers.take((2, 5)).data_ptr() not in addresses


def test_views_and_autograd_hold_memory_too():
    buffers = Buffers()
    view = buffers.take((4, 3)).fill_(1).permute(1, 0)
    weight = torch.ones(3, 2, requires_grad=True)
    loss = (buffers.take((4, 3)).fill_(2) @ weight).sum()  # saved for backward, and nowhere else
    assert buffers.take((4, 3)).fill_(9).data_ptr() != view.data_ptr()
    loss.backward()
    assert view.unique().tolist() == [1]
    assert weight.grad.unique().tolist() == [8]
