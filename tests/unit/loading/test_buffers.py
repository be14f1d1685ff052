"""Memory is used again when nobody holds it, and never before."""

import gc
import sys
import threading

import numpy as np
import pytest
import torch

from dali_pipeline.loading.dali.buffers import KEPT, Buffers


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


def test_little_memory_is_kept_free():
    buffers = Buffers()
    held = [buffers.take(12) for _ in range(3 * KEPT)]
    addresses = {batch.data_ptr() for batch in held}
    held.clear()
    again = [buffers.take(12) for _ in range(KEPT)]
    assert {batch.data_ptr() for batch in again} <= addresses
    assert not buffers._free


HOLDERS = {
    "a view": lambda batch: batch.view(4, 3).permute(1, 0)[1:],
    "a NumPy array": lambda batch: batch.numpy()[3:],
    "an array of a view": lambda batch: np.asarray(batch.view(4, 3))[:, 1],
    "a memoryview": lambda batch: memoryview(batch.numpy())[2:],
    "DLPack": lambda batch: torch.from_dlpack(batch),
    "NumPy's DLPack": lambda batch: np.from_dlpack(batch),
    "a storage": lambda batch: batch.untyped_storage(),
    "a detached tensor": lambda batch: batch.detach(),
    "a parameter": lambda batch: torch.nn.Parameter(batch),
    "a tensor set to the storage": lambda batch: torch.empty(0).set_(batch.untyped_storage()),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_whatever_shares_the_memory_holds_it(kind):
    buffers = Buffers()
    batch = buffers.take(12).fill_(1)
    address = batch.data_ptr()
    holder = HOLDERS[kind](batch)
    del batch
    assert buffers.take(12).data_ptr() != address
    del holder
    gc.collect()
    assert address in {buffers.take(12).data_ptr(), buffers.take(12).data_ptr()}


def test_autograd_holds_memory_too():
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


def test_any_thread_may_hold_and_let_go():
    """The maker, the trainer and autograd's thread each drop batches; none is given out twice."""
    buffers, wrong, handed = Buffers(), [], []
    ready = threading.Semaphore(0)

    def consume():
        for number in range(400):
            ready.acquire()
            batch = handed[number]
            handed[number] = None
            if batch.unique().tolist() != [number]:
                wrong.append(number)

    consumer = threading.Thread(target=consume)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        consumer.start()
        for number in range(400):
            handed.append(buffers.take(64).fill_(number))
            ready.release()
        consumer.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not consumer.is_alive()
    assert wrong == []
