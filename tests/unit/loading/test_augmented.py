"""Augmented and mixed batches: alike by all loaders, the same however workers are carried."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms import v2

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.augment import operate
from dali_pipeline.loading.dali.loader import DaliLoader
from dali_pipeline.loading.interface import MEAN, STD
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.loading.mixed import mix
from dali_pipeline.loading.torchvision_loader import training_images
from dali_pipeline.sampling.augmentation import OPERATIONS
from dali_pipeline.sampling.mixing import mixing
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings
from hvd_utils.paper.logical_workers import passes
from hvd_utils.training.optimizer import minibatch_loss

CPU = torch.device("cpu")
PIXELS = {"augment": "trivial", "erase": 0.6}
ALL = {**PIXELS, "mixup": 0.4, "cutmix": 1.0}


def plan_for(data, mine=range(3), fuse=1, **changes):
    settings = Settings(
        recipe="demo", workers=3, batch_per_worker=4, resolution=32, val_resize=36, **changes
    )
    return Plan(*scan_splits(data), settings, passes(mine, fuse), 0, 1)


def load(data, first=0, last=4, **options):
    loader = make_loader("dali", plan_for(data, **options), device=CPU, threads=2)
    return list(loader.training(first, last))


@pytest.fixture(scope="module")
def alone(tiny_data):
    return load(tiny_data, **ALL)


def test_dali_and_the_reference_augment_alike(tiny_data):
    """Decoders differ by a level of 255, which an operation may raise; none leaves one out."""
    level = torch.tensor(STD).view(3, 1, 1) * 255
    plan, changed = plan_for(tiny_data, **PIXELS), 0
    batches = zip(load(tiny_data, **PIXELS), load(tiny_data), strict=True)
    for place, ((ours, _), (plain, _)) in zip(plan.training_places(0, 4), batches, strict=True):
        theirs = training_images(plan, plan.training_batch(*place))
        assert ((ours - theirs) * level).abs().mean(dim=(1, 2, 3)).max() < 3
        assert torch.equal(ours == 0, theirs == 0)  # what is erased is the mean
        changed += int((((ours - plain) * level).abs().mean(dim=(1, 2, 3)) > 3).sum())
    assert changed > 0.7 * 12 * 4


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_torchvisions(monkeypatch, name):
    """Of the largest magnitude, by the public transform, whose draws are given."""
    pixels = torch.randint(30, 200, (3, 24, 24), generator=torch.Generator().manual_seed(1))
    pixels, transform = pixels.to(torch.uint8), v2.TrivialAugmentWide(interpolation=2)
    levels, _ = transform._AUGMENTATION_SPACE[name]
    magnitude = 0.0 if levels(31, 24, 24) is None else float(levels(31, 24, 24)[30])
    monkeypatch.setattr(
        transform, "_get_random_item", lambda space: (name, (space[name][0], False))
    )
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.tensor(high - 1))
    made = operate(pixels, OPERATIONS.index(name), magnitude)
    assert torch.equal(made, transform(pixels))
    assert torch.equal(made, pixels) == (name == "Identity")


def test_a_run_can_begin_at_any_step(tiny_data, alone):
    for one, other in zip(load(tiny_data, 2, 3, **ALL), alone[6:9], strict=True):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("mine", [range(3), range(1, 3)])
def test_a_fused_pass_holds_what_its_workers_would_see_alone(tiny_data, alone, mine):
    fused = load(tiny_data, mine=mine, fuse=3, **ALL)
    for step, (images, labels) in enumerate(fused):
        for place, worker in enumerate(mine):
            expected, expected_labels = alone[3 * step + worker]
            assert torch.equal(images[place :: len(mine)], expected)
            assert torch.equal(labels[place :: len(mine)], expected_labels)


def test_mixed_labels_are_shares_of_two_classes(alone):
    for images, labels in alone:
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.shape == (4, 3)
        assert torch.allclose(labels.sum(dim=1), torch.ones(4))
        assert ((labels > 0).sum(dim=1) <= 2).all()


@pytest.mark.parametrize("which", ["mixup", "cutmix"])
def test_a_batch_is_mixed_as_torchvision_does(monkeypatch, which):
    images, labels = torch.randn(5, 3, 16, 16), torch.tensor([0, 1, 2, 1, 0])
    planned = mixing(1, 2, range(1), 16, **{"mixup": 0.0, "cutmix": 0.0, which: 1.0})
    top, left, height, width = (int(side[0]) for side in planned.boxes)
    share = float(planned.share[0])
    given = {"lam": share, "lam_adjusted": share, "box": (left, top, left + width, top + height)}
    transform = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[which](num_classes=3)
    monkeypatch.setattr(transform, "make_params", lambda inputs: given)
    expected = transform(images, labels)
    for mine, theirs in zip(mix((images, labels), planned, 3), expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    assert not torch.equal(expected[0], images)


def test_the_loss_of_a_mixed_image_is_that_of_its_two_labels_by_their_shares():
    logits = torch.randn(6, 5, dtype=torch.float64)
    own, other = torch.randint(0, 5, (2, 6))
    share = torch.tensor(0.3)
    labels = torch.lerp(*(functional.one_hot(n, 5).float() for n in (other, own)), share)
    mine, theirs, mixed = (minibatch_loss(logits, part, 12, 0.1) for part in (own, other, labels))
    assert mixed.dtype == torch.float64
    assert torch.allclose(mixed, 0.3 * mine + 0.7 * theirs, rtol=1e-6)


def test_what_is_erased_is_the_mean_colour(tiny_data):
    erased = load(tiny_data, erase=1.0)
    plain = load(tiny_data)
    for (images, _), (others, _) in zip(erased, plain, strict=True):
        mean = torch.tensor(MEAN).view(3, 1, 1) * 255
        grey = images * torch.tensor(STD).view(3, 1, 1) * 255 + mean
        changed = (images != others).any(dim=1)
        assert changed.flatten(1).any(dim=1).all()
        boxes = grey.permute(0, 2, 3, 1)[changed]
        assert torch.allclose(boxes, mean.flatten().expand_as(boxes))
        assert np.all(changed.float().mean(dim=(1, 2)).numpy() < 0.4)


def test_for_a_gpu_augmented_images_are_made_here_and_uploaded(tiny_data, monkeypatch):
    """Of one that is only pretended: pinned for it, in its context, and the same images."""
    gpu, uploads, convert = torch.device("cuda", 1), [], torch.Tensor.to

    def to(part, *target, **how):
        if target != (gpu,):
            return convert(part, *target, **how)
        uploads.append(how)
        return part

    with monkeypatch.context() as pretended:
        pretended.setattr(torch.Tensor, "pin_memory", lambda part: part)
        pretended.setattr(torch.Tensor, "to", to)
        pretended.setattr(torch.cuda, "device", lambda device: nullcontext())
        loader = DaliLoader(plan_for(tiny_data, **PIXELS), gpu, 1)
        made = list(loader.training(0, 1))
    assert uploads == [{"non_blocking": True}] * 6
    for one, other in zip(made, load(tiny_data, 0, 1, **PIXELS), strict=True):
        assert all(map(torch.equal, one, other))
