"""Crop windows and flips: torchvision's distribution, from counters instead of state."""

import hashlib

import numpy as np
import pytest
import torch
from torchvision.transforms import CenterCrop, RandomResizedCrop, Resize

from dali_pipeline.sampling.crops import Stream, central_placement, flips, training_windows

MANY = 20_000


def windows(height, width, *, seed=1, epoch=0, count=MANY, min_area=0.08, max_ratio=4 / 3):
    ids = np.arange(count)
    stream = Stream(seed, np.full(count, epoch), ids)
    sizes = np.full(count, height), np.full(count, width)
    return training_windows(stream, *sizes, min_area, max_ratio)


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 333), (40, 400), (400, 40), (1, 1)]
)
def test_windows_lie_within_the_image(height, width):
    w = windows(height, width)
    assert (w.top >= 0).all()
    assert (w.left >= 0).all()
    assert (w.height >= 1).all()
    assert (w.width >= 1).all()
    assert (w.top + w.height <= height).all()
    assert (w.left + w.width <= width).all()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (200, 90), (64, 400)])
def test_windows_have_the_distribution_of_torchvision(height, width):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(MANY)]
    )
    for name, ours, reference in zip(
        ("top", "left", "height", "width"), windows(height, width), theirs.T, strict=True
    ):
        levels = np.linspace(2, 98, 25)
        spread = max(1.0, reference.std())
        difference = np.percentile(ours, levels) - np.percentile(reference, levels)
        assert np.abs(difference).max() < 0.1 * spread + 1, name
        assert abs(ours.mean() - reference.mean()) < 0.03 * spread, name


def test_an_image_that_no_attempt_fits_is_cropped_centrally():
    w = windows(10, 1000)
    centrally = (w.top == 0) & (w.height == 10) & (w.width == 13) & (w.left == (1000 - 13) // 2)
    assert centrally.mean() > 0.9


def test_a_crop_depends_on_seed_epoch_and_image_alone():
    ids = np.array([5, 900, 17])
    sizes = np.array([300, 200, 100]), np.array([200, 300, 400])
    alone = [
        training_windows(
            Stream(1, np.array([2]), ids[i : i + 1]),
            sizes[0][i : i + 1],
            sizes[1][i : i + 1],
            0.08,
            4 / 3,
        )
        for i in range(3)
    ]
    together = training_windows(Stream(1, np.full(3, 2), ids), *sizes, 0.08, 4 / 3)
    assert np.array_equal(np.array(together), np.concatenate([np.array(a) for a in alone], axis=1))


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 1}])
def test_seed_and_epoch_change_the_crops(other):
    assert (windows(375, 500).left != windows(375, 500, **other).left).mean() > 0.9


def test_draws_are_uniform_and_not_correlated():
    stream = Stream(7, np.zeros(MANY), np.arange(MANY))
    draws = np.array([stream.uniform(i) for i in range(8)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=1) - 0.5).max() < 0.01
    assert np.abs(draws.var(axis=1) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(draws) - np.eye(8)).max() < 0.03
    neighbours = np.corrcoef(draws[0][:-1], draws[0][1:])[0, 1]
    assert abs(neighbours) < 0.03


def test_half_of_the_images_are_flipped_whatever_their_crop():
    stream = Stream(1, np.zeros(MANY), np.arange(MANY))
    flipped = flips(stream)
    assert abs(flipped.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(flipped, windows(375, 500).left)[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (501, 333), (256, 257), (90, 91), (8, 8)]
)
def test_validation_placement_is_torchvisions_to_the_pixel(height, width):
    size, corner = central_placement(np.array([height]), np.array([width]), 256, 224)
    image = torch.arange(height * width).reshape(1, height, width).float()
    resized = Resize(256, antialias=True)(image)
    assert tuple(size[0]) == tuple(resized.shape[1:])
    top, left = corner[0]
    ours = resized[:, top : top + 224, left : left + 224]
    assert torch.equal(ours, CenterCrop(224)(resized))


def test_windows_are_the_same_on_every_machine_and_numpy():
    """What a run drew once, it draws again wherever it goes on: these were written down."""
    ids = np.arange(20_000)
    stream = Stream(1, np.full(len(ids), 3), ids)
    drawn = training_windows(stream, np.full(len(ids), 375), np.full(len(ids), 500), 0.08, 4 / 3)
    mirrored = flips(stream)
    assert [tuple(int(part[i]) for part in drawn) for i in range(2)] == [
        (35, 83, 312, 269),
        (37, 25, 319, 410),
    ]
    assert mirrored[:8].tolist() == [0, 1, 0, 0, 1, 1, 1, 0]
    everything = np.stack([*drawn, mirrored]).astype("<i4").tobytes()
    assert hashlib.sha256(everything).hexdigest() == (
        "00e3bcc76513b07caf4bdcb0b362fd223f2b01543b12dbac8acd371a1a19fe95"
    )
