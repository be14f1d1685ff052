"""Memory is used again when nobody holds it, and never before."""

import torch

from dali_pipeline.buffers import KEPT, Buffers


def test_a_batch_that_somebody_holds_keeps_its_memory():
    buffers = Buffers()
    held = [buffers.take(12).fill_(number) for number in range(2 * KEPT)]
    assert [batch.unique().tolist() for batch in held] == [[number] for number in range(2 * KEPT)]


def test_memory_that_nobody_holds_is_used_again():
    buffers = Buffers()
    addresses = {buffers.take(12).data_ptr() for _ in range(5)}
    assert len(addresses) == 1
    assert buffers.take(6).data_ptr() in addresses  # a smaller batch fits too
    assert len(buffers.take(6)) == 6
    assert buffers.take(13).data_ptr() not in addresses


def test_views_and_autograd_hold_memory_too():
    buffers = Buffers()
    view = buffers.take(12).fill_(1).view(4, 3).permute(1, 0)
    weight = torch.ones(3, 2, requires_grad=True)
    images = buffers.take(12).fill_(2).view(4, 3)
    loss = (images @ weight).sum()
    del images  # saved for backward, and nowhere else
    assert buffers.take(12).fill_(9).data_ptr() != view.data_ptr()
    loss.backward()
    assert view.unique().tolist() == [1]
    assert weight.grad.unique().tolist() == [8]
