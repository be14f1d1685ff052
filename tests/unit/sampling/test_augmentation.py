"""Operations, erased boxes and mixing: torchvision's own choices, from an image's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from dali_pipeline.sampling import augmentation
from dali_pipeline.sampling.augmentation import (
    LEVELS,
    OPERATIONS,
    erased_windows,
    trivial_operations,
)
from dali_pipeline.sampling.crops import ATTEMPTS, Stream
from dali_pipeline.sampling.mixing import mixing

MANY = 40_000


@pytest.fixture(scope="module")
def stream():
    return Stream(1, np.zeros(MANY, np.int32), np.arange(MANY))


def test_operations_are_those_of_torchvision_each_with_equal_chance(stream):
    space = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert tuple(space) == OPERATIONS
    kind, magnitude = trivial_operations(stream)
    for number, (levels, signed) in enumerate(space.values()):
        mine = magnitude[kind == number]
        assert len(mine) == pytest.approx(MANY / len(OPERATIONS), rel=0.1)
        theirs = levels(LEVELS, 32, 32)
        expected = {0.0} if theirs is None else set(np.round(theirs.numpy().astype(float), 4))
        assert set(np.round(np.abs(mine), 4)) == expected
        assert (mine < 0).mean() == pytest.approx(0.5 * signed * (1 - 1 / LEVELS), abs=0.05)


def test_boxes_are_those_of_torchvision(stream):
    """In number, area and place, by the mean of many of its own."""
    side, erasing = 176, v2.RandomErasing(p=1)
    windows = erased_windows(stream, 0.25, side)
    some = windows.height > 0
    assert some.mean() == pytest.approx(0.25, abs=0.01)
    torch.manual_seed(0)
    theirs = [erasing.make_params([torch.empty(3, side, side)]) for _ in range(4000)]
    for mine, name in zip(windows, "ijhw", strict=True):
        expected = np.array([box[name] for box in theirs])
        assert mine[some].mean() == pytest.approx(expected.mean(), rel=0.05)
        assert mine[some].std() == pytest.approx(expected.std(), rel=0.07)
    assert (windows.top + windows.height <= side).all()
    assert (windows.left + windows.width <= side).all()
    assert windows.top[some].min() == 0
    assert (windows.top + windows.height)[some].max() == side


def test_an_image_has_its_own_in_any_order_and_company():
    ids = np.array([7, 3, 11])
    together = Stream(2, np.array([0, 1, 5]), ids)
    for place, (epoch, image) in enumerate(zip((0, 1, 5), ids, strict=True)):
        alone = Stream(2, np.array([epoch]), np.array([image]))
        for whole, part in (
            (trivial_operations(together), trivial_operations(alone)),
            (erased_windows(together, 0.9, 32), erased_windows(alone, 0.9, 32)),
        ):
            assert [column[place] for column in whole] == [column[0] for column in part]


def test_draws_are_not_those_of_the_crop():
    """22 of which are a flip and the place of a crop."""
    draws = [augmentation._OPERATION, augmentation._LEVEL, augmentation._SIGN]
    draws += [augmentation._WHETHER, augmentation._ERASED]
    assert min(draws) > 2 * ATTEMPTS + 2
    assert len(set(draws)) == len(draws)
    assert max(draws) == augmentation._ERASED


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha):
    share = mixing(1, 5, range(MANY), 32, mixup=alpha, cutmix=0).share
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    expected = torch.distributions.Beta(alpha, alpha).sample((MANY,)).numpy()
    assert np.quantile(share, 0.25) == pytest.approx(np.quantile(expected, 0.25), abs=0.02)


def test_a_box_is_torchvisions_and_the_label_has_its_share(monkeypatch):
    mixed = mixing(1, 5, range(200), 33, mixup=0, cutmix=1)
    chosen = mixing(1, 5, range(200), 33, mixup=1, cutmix=0).share  # of the same draw
    stream = Stream(1, np.full(200, 5), np.arange(200))
    centres = np.stack([stream.uniform(draw) * 33 for draw in (131, 130)]).astype(int)
    cut = v2.CutMix(num_classes=3)
    for worker in range(200):
        drawn = iter(centres[:, worker])
        monkeypatch.setattr(cut._dist, "sample", lambda shape, w=worker: torch.tensor(chosen[w]))
        monkeypatch.setattr(torch, "randint", lambda high, size, d=drawn: torch.tensor([next(d)]))
        theirs = cut.make_params([torch.empty(2, 3, 33, 33)])
        top, left, height, width = (int(side[worker]) for side in mixed.boxes)
        assert theirs["box"] == (left, top, left + width, top + height)
        assert theirs["lam_adjusted"] == pytest.approx(mixed.share[worker])


def test_a_worker_mixes_in_its_own_way_in_each_step_whoever_carries_it():
    both = {"mixup": 0.2, "cutmix": 1.0}
    together = mixing(3, 9, range(2, 6), 32, **both)
    for place, worker in enumerate(range(2, 6)):
        alone = mixing(3, 9, range(worker, worker + 1), 32, **both)
        assert alone.share[0] == together.share[place]
        assert [side[0] for side in alone.boxes] == [side[place] for side in together.boxes]
    pasted = mixing(3, 9, range(MANY), 32, **both).pasted
    assert pasted.mean() == pytest.approx(0.5, abs=0.01)
    assert len({mixing(3, step, range(1), 32, **both).share[0] for step in range(50)}) > 40
    assert not mixing(3, 9, range(MANY), 32, mixup=0.2, cutmix=0).pasted.any()
    assert mixing(3, 9, range(MANY), 32, mixup=0, cutmix=1.0).pasted.all()
