"""The loaders carry out the same plan: the same images, crops and labels, in the same order."""

import shutil

import numpy as np
import pytest
import torch
from support.images import write_jpegs
from support.loaders import (
    CPU,
    GROWING,
    SETTINGS,
    STEPS,
    assert_alike,
    images_by_worker,
    load,
    plan_for,
)

from dali_pipeline import prepare
from dali_pipeline.dataset.index import synthetic_index
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.paper.logical_workers import passes, share


@pytest.mark.parametrize("sides", ["both", "growing"])
def test_dali_decodes_what_torchvision_decodes_image_by_image(request, sides):
    """PyTorch's filter rounds otherwise than PIL's, see test_formats.py."""
    made = request.getfixturevalue(sides)
    assert_alike(made["dali"], made["torchvision"], 0.3, 2.5)


def test_every_batch_has_the_side_of_its_step(tiny_data, growing):
    synthetic = load("synthetic", plan_for(tiny_data, **GROWING), STEPS[0], STEPS[-1] + 1)
    for training, validation in (*growing.values(), synthetic):
        sides = [images.shape[2:] for images, _ in training]  # two workers a step
        assert sides == 2 * [(32, 32)] + 8 * [(64, 64)] + 2 * [(96, 96)]
        assert {images.shape[1:] for images, _ in validation} == {(3, 40, 40)}


def test_a_run_can_begin_in_the_middle_of_the_ramp(tiny_data, growing):
    part, _ = load("dali", plan_for(tiny_data, **GROWING), 7, 9)
    for (images, _), (expected, _) in zip(part, growing["dali"][0][8:], strict=True):
        assert torch.equal(images, expected)


def test_batches_have_the_shape_and_type_that_the_model_takes(both):
    for training, validation in both.values():
        assert [images.shape for images, _ in training] == [(4, 3, 32, 32)] * 6
        assert [len(images) for images, _ in validation] == [3, 3, 1]
        assert all(
            images.is_contiguous(memory_format=torch.channels_last)
            for images, _ in training + validation
        )
        assert {images.dtype for images, _ in training + validation} == {torch.float32}
        assert {labels.dtype for _, labels in training + validation} == {torch.int64}


def test_dali_batches_are_not_overwritten_by_later_ones(tiny_data):
    loader = make_loader("dali", plan_for(tiny_data), device=CPU, threads=1)
    kept, copies = [], []
    for images, _ in loader.training(0, 10):
        kept.append(images)
        copies.append(images.clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.parametrize("kind", ["dali", "torchvision", "synthetic"])
def test_a_run_can_begin_at_any_step(tiny_data, both, kind):
    whole = both.get(kind) or load(kind, plan_for(tiny_data))
    part, _ = load(kind, plan_for(tiny_data), first=1, last=2)
    for (images, labels), (expected, expected_labels) in zip(part, whole[0][2:4], strict=True):
        assert torch.equal(labels, expected_labels)
        assert torch.equal(images, expected)


def test_images_are_the_same_in_one_large_batch_or_several(tiny_data):
    """Held to it on a GPU too, by each way of decoding: ``tests/gpu/test_gpu_decoding.py``."""
    plans = [plan_for(tiny_data, workers=3, mine=range(3), fuse=fuse) for fuse in (1, 3)]
    made = [images_by_worker(plan) for plan in plans]
    assert made[0].shape == (3, 4, 3, 32, 32)
    assert torch.equal(*made)


@pytest.mark.parametrize("kind", ["dali", "torchvision", "synthetic"])
def test_a_fused_pass_holds_what_its_workers_would_see_alone(tiny_data, kind):
    alone, _ = load(kind, plan_for(tiny_data, workers=3, mine=range(3)))
    fused, _ = load(kind, plan_for(tiny_data, workers=3, mine=range(3), fuse=2))
    assert [len(images) for images, _ in fused] == [4, 8] * 3  # passes of 1 and 2 workers
    for step in range(3):
        (first, _), (images, labels) = fused[2 * step : 2 * step + 2]
        assert torch.equal(first, alone[3 * step][0])
        for place in (0, 1):
            expected, expected_labels = alone[3 * step + 1 + place]
            assert torch.equal(images[place::2], expected)
            assert torch.equal(labels[place::2], expected_labels)


def test_processes_see_the_parts_of_the_same_minibatch(tiny_data, both):
    second, _ = load("dali", plan_for(tiny_data, mine=range(1, 2), rank=1, size=2))
    for (images, labels), (expected, expected_labels) in zip(
        second, both["dali"][0][1::2], strict=True
    ):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_a_crop_belongs_to_the_image_and_the_epoch_not_to_the_worker(tiny_data):
    """However a minibatch of 8 is split, and whatever was planned before."""
    whole = plan_for(tiny_data, workers=1, batch_per_worker=8, mine=range(1))
    parts = plan_for(tiny_data, workers=4, batch_per_worker=2, mine=range(4))
    for step in (5, 0):  # step 3 opens the second epoch: 30 images
        expected = whole.training_batch(step, range(1))
        batches = [parts.training_batch(step, fused) for fused in parts.passes]
        assert np.array_equal(np.concatenate([batch.ids for batch in batches]), expected.ids)
        assert np.array_equal(np.concatenate([b.flips for b in batches]), expected.flips)
        for ours, theirs in zip(
            zip(*(batch.windows for batch in batches), strict=True), expected.windows, strict=True
        ):
            assert np.array_equal(np.concatenate(ours), theirs)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_no_image_is_lost_or_doubled_for_any_world_and_resume_point(tiny_data, size, stop):
    """Three minibatches of 20 are two epochs of 30 images."""
    seen = []
    for first, last in ((0, stop), (stop, 3)):
        for rank in range(size):
            plan = plan_for(
                tiny_data, workers=5, mine=share(5, rank, size), fuse=2, rank=rank, size=size
            )
            for place in plan.training_places(first, last):
                seen += list(zip(*plan.training_ids(*place), strict=True))
    assert sorted(seen) == [(epoch, image) for epoch in range(2) for image in range(30)]


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_validation_shards_hold_every_image_once(tiny_data, size):
    plans = [plan_for(tiny_data, rank=rank, size=size) for rank in range(size)]
    seen = [image for plan in plans for ids in plan.validation_ids() for image in ids]
    assert sorted(seen) == list(range(7))


def test_an_empty_validation_shard_yields_nothing(tiny_data):
    for kind in ("dali", "torchvision", "synthetic"):
        _, validation = load(kind, plan_for(tiny_data, rank=8, size=9), last=1)
        assert validation == []


def test_validation_can_be_run_again_and_again(tiny_data):
    loader = make_loader("dali", plan_for(tiny_data), device=CPU, threads=1)
    first, second = list(loader.validation()), list(loader.validation())
    assert len(first) == 3
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["dali", "torchvision"])
def test_a_broken_image_is_named(tmp_path, kind):
    write_jpegs(tmp_path / "train", {"ant": 8})
    write_jpegs(tmp_path / "val", {"ant": 1})
    bad = tmp_path / "train" / "ant" / "003.JPEG"
    content = bad.read_bytes()
    bad.write_bytes(content[:200])  # the header is whole, the picture is not
    with pytest.raises(BadInput, match="cannot read image .*003.JPEG"):
        load(kind, plan_for(tmp_path, workers=1, batch_per_worker=8, mine=range(1)), last=1)


def test_a_minibatch_larger_than_the_training_set_is_refused(tiny_data):
    with pytest.raises(BadInput, match="16 workers of 4 images is more than the 30"):
        plan_for(tiny_data, workers=16)


def test_synthetic_images_need_no_files_and_are_planned_like_others():
    index = synthetic_index(1000, 10)
    plan = Plan(index, index, SETTINGS, passes(range(2), 1), 0, 1)
    training, validation = load("synthetic", plan)
    assert training[0][0].shape == (4, 3, 32, 32)
    assert np.array_equal(training[0][1], index.labels[plan.training_ids(0, range(1))[1]])
    assert sum(len(labels) for _, labels in validation) == 1000
    fused = Plan(index, index, SETTINGS, passes(range(2), 2), 0, 1)
    ((images, _), *_), _ = load("synthetic", fused)
    assert torch.equal(images, torch.stack([training[0][0], training[1][0]], 1).flatten(0, 1))
    for batch in (images, training[0][0], validation[0][0]):  # as DALI's on a GPU
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_a_packed_set_is_read_like_the_files_it_was_made_of(tiny_data, both, tmp_path):
    folder, packed = tmp_path / "loose", tmp_path / "packed"
    shutil.copytree(tiny_data, folder)
    prepare.main([str(folder), "--pack", str(packed), "--processes", "1"])
    plan = Plan(*open_splits(packed), SETTINGS, passes(range(2), 1), 0, 1)
    assert plan.train.packed
    for ours, theirs in zip(load("dali", plan), both["dali"], strict=True):
        for (images, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)
