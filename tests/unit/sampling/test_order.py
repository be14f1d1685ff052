"""One global shuffle an epoch, split among the workers (Remark 4)."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from dali_pipeline.sampling.crops import Stream, training_windows
from dali_pipeline.sampling.order import (
    VERSIONS,
    images_at,
    images_in_epoch,
    pass_images,
    permutation,
    worker_images,
)

# Of (seed 1, epoch 0) and (seed 2^63 - 1, epoch 89); the checksum is of an ImageNet epoch's int64.
FIRST = {"stored": [3, 5, 2, 9, 7, 0, 8, 6, 1, 4], "computed": [7, 8, 3, 6, 9, 5, 1, 4, 0, 2]}
LAST = {"stored": [0, 1, 4, 5, 9, 2, 6, 8, 3, 7], "computed": [0, 2, 1, 9, 4, 3, 8, 7, 5, 6]}
IMAGENETS = {
    "stored": "dcd292e9c3d0f899ca1c9dbc44fb383c0f63df6d566635d1f806183d9c69270b",
    "computed": "033177d8eb059565b355288549e24f2eec365c856fe02b6f706a89d44a36d493",
}


@pytest.fixture(params=VERSIONS)
def order(request):
    """The two ways in which a run shuffles."""
    return request.param


def epoch_of(seed, epoch, num_images, order):
    return images_in_epoch(seed, epoch, np.arange(num_images), num_images, order)


def minibatch(step, *, workers=4, batch=3, num_images=50, seed=1, **order):
    sizes = {"workers": workers, "batch": batch, "num_images": num_images}
    parts = [worker_images(seed, step, w, **sizes, **order) for w in range(workers)]
    return np.concatenate([e for e, _ in parts]), np.concatenate([i for _, i in parts])


def test_an_epoch_is_a_permutation_of_the_whole_training_set(order):
    ids = epoch_of(1, 0, 1000, order)
    assert sorted(ids) == list(range(1000))
    assert not np.array_equal(ids, np.arange(1000))


def test_images_move_through_the_whole_epoch(order):
    """A buffer of 1,024 images, say, would leave each near its place; a shuffle moves it N / 3."""
    ids = epoch_of(1, 0, 30_000, order)
    assert abs(np.abs(ids - np.arange(30_000)).mean() / 10_000 - 1) < 0.03


def test_the_order_is_the_same_on_every_machine_and_numpy(order):
    """These come from C programs after the descriptions, with their own Philox4x64-10 (Salmon et
    al. 2011), not from this code."""
    assert epoch_of(1, 0, 10, order).tolist() == FIRST[order]
    assert epoch_of(2**63 - 1, 89, 10, order).tolist() == LAST[order]
    ids = epoch_of(1, 0, 1_281_167, order)
    assert hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest() == IMAGENETS[order]


def test_the_order_of_more_images_than_any_memory_holds_is_the_same_everywhere():
    """These too come from the C program."""
    last = np.arange(10**9 - 3, 10**9)
    assert images_in_epoch(7, 3, last, 10**9).tolist() == [74684153, 164309999, 267533068]
    assert images_in_epoch(7, 3, np.array([5, 6]), 2**62).tolist() == [
        1389290792439156735,
        2036250094934249784,
    ]


def test_any_place_is_equally_likely_for_any_image(order):
    """Chi-squared of 20 images at 20 places, of 2,000 epochs: 361 degrees of freedom."""
    counts = np.zeros((20, 20))
    for epoch in range(2000):
        counts[np.arange(20), epoch_of(7, epoch, 20, order)] += 1
    chi2 = ((counts - 100) ** 2 / 100).sum()
    assert abs(chi2 - 361) < 5 * np.sqrt(2 * 361)


@pytest.mark.parametrize("num_images", [1, 2, 3, 4, 9, 1023, 1024, 1025, 65_535, 65_536])
def test_sets_of_every_length_are_permuted(num_images, order):
    ids = epoch_of(5, 2, num_images, order)
    assert np.array_equal(np.sort(ids), np.arange(num_images))


def test_epochs_and_seeds_are_shuffled_differently(order):
    first = epoch_of(1, 0, 1000, order)
    assert not np.array_equal(first, epoch_of(1, 1, 1000, order))
    assert not np.array_equal(first, epoch_of(2, 0, 1000, order))


def test_no_image_is_lost_or_doubled_over_epochs_that_do_not_divide():
    """50 images in minibatches of 12: the 2 left over open the next epoch's first minibatch."""
    epochs, ids = zip(*(minibatch(step) for step in range(25)), strict=True)  # 300 = 6 epochs
    epochs, ids = np.concatenate(epochs), np.concatenate(ids)
    for epoch in range(6):
        assert sorted(ids[epochs == epoch]) == list(range(50))


def test_a_minibatch_does_not_depend_on_how_many_workers_share_it():
    for step in (0, 4, 17):
        whole = minibatch(step, workers=1, batch=12)[1]
        assert np.array_equal(minibatch(step, workers=4, batch=3)[1], whole)
        assert np.array_equal(minibatch(step, workers=6, batch=2)[1], whole)


def test_any_step_can_be_asked_for_without_those_before():
    late = images_at(3, 10**6, 8, 1000)
    images_at(3, 0, 8, 1000)
    again = images_at(3, 10**6, 8, 1000)
    assert np.array_equal(late[1], again[1])


def test_shuffling_is_global_not_within_shards():
    """Each worker sees images from the whole set, which a shuffle per shard would not give."""
    seen = np.concatenate(
        [
            worker_images(1, step, 0, workers=4, batch=8, num_images=4096)[1]
            for step in range(128)  # one epoch
        ]
    )
    quarters = np.bincount(seen // 1024, minlength=4)
    assert quarters.min() > 200  # of 1024 images; a shard's shuffle gives 0 in three of them


def test_the_images_of_a_fused_pass_alternate_between_its_workers():
    """Image i of the j-th worker at place i · 3 + j, also where an epoch ends within the pass."""
    for step in (0, 4):
        sizes = {"workers": 4, "batch": 3, "num_images": 50}
        epochs, ids = pass_images(1, step, range(1, 4), **sizes)
        for place, worker in enumerate(range(1, 4)):
            alone = worker_images(1, step, worker, **sizes)
            assert np.array_equal(epochs[place::3], alone[0])
            assert np.array_equal(ids[place::3], alone[1])


def planning_takes(num_images, order):
    """Return the most bytes held at once while the images and crops of a minibatch are chosen."""
    permutation.cache_clear()
    tracemalloc.start()
    _, ids = images_at(1, 0, 8192, num_images, order)
    heights = widths = np.full(len(ids), 500)
    training_windows(Stream(1, np.zeros_like(ids), ids), heights, widths, 0.08, 4 / 3)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    permutation.cache_clear()
    return highest


def test_an_imagenet_epoch_is_planned_in_little_memory():
    """Under 50 MB at the highest, of which the permutation kept is 10 MB."""
    assert planning_takes(1_281_167, "stored") < 50e6


@pytest.mark.parametrize("num_images", [10**6, 10**12])
def test_a_computed_order_takes_no_memory_that_grows_with_the_set(num_images):
    assert planning_takes(num_images, "computed") < 3e6
