"""Gradients of a bucket are kept in one block of memory, in its order."""

import torch

from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.gradient_buckets import place_contiguously
from hvd_utils.nn.cpu import HUGE_PAGE
from hvd_utils.nn.memory_format import set_memory_format
from hvd_utils.nn.models import build_model
from hvd_utils.training.optimizer import build_optimizer


def test_a_buckets_gradients_fill_one_block_in_its_order():
    model, other = (build_model("resnet8", 10, zero_gamma=False, seed=1) for _ in range(2))
    for network in (model, other):
        set_memory_format(network, channels_last=True)
    bucket = list(model.parameters())[::-1]
    place_contiguously([bucket[:5], bucket[5:]])
    images = torch.randn(4, 3, 24, 24)
    for _step in range(2):
        for _ in range(2):  # the second pass adds to the first's
            model(images).square().sum().backward()
            other(images).square().sum().backward()
        for group in (bucket[:5], bucket[5:]):
            places = [parameter.grad.data_ptr() for parameter in group]
            sizes = [4 * parameter.numel() for parameter in group]
            ends = [place + size for place, size in zip(places, sizes, strict=True)]
            assert places[1:] == ends[:-1]
            assert places[0] % HUGE_PAGE == 0
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            assert ours.grad.stride() == ours.stride()
            torch.testing.assert_close(ours.grad, theirs.grad)
        model.zero_grad()
        other.zero_grad()


def test_cuda_graphs_find_gradients_at_the_same_place_in_every_pass_and_step():
    """What their backward pass leaves is overwritten by the next one."""
    model = build_model("resnet8", 10, zero_gamma=False, seed=1)
    settings = Settings(recipe="test", compile="cudagraphs")
    optimizer = build_optimizer(model, settings, passes=2)
    places, kept = [], []
    for _step in range(2):
        for _ in range(2):
            model(torch.randn(4, 3, 24, 24)).square().sum().backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            kept.append(gradients)  # so that their memory is nobody else's
            places.append([gradient.data_ptr() for gradient in gradients])
        optimizer.zero_grad()
    assert all(later == places[0] for later in places)
