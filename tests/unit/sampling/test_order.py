"""One global shuffle an epoch, split among the workers (Remark 4)."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from dali_pipeline.sampling.crops import Stream, training_windows
from dali_pipeline.sampling.order import images_at, pass_images, permutation, worker_images

# Of (seed 1, epoch 0) and (seed 2^63 - 1, epoch 89); the checksum is of an ImageNet epoch's int32.
FIRST = [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]
LAST = [0, 1, 4, 5, 9, 2, 6, 8, 3, 7]
IMAGENETS = "66090543bf0a046111aab1c487fc8ca00f5df9df5ea1a8056f3c1fe577a4351f"


def minibatch(step, *, workers=4, batch=3, num_images=50, seed=1):
    parts = [
        worker_images(seed, step, w, workers=workers, batch=batch, num_images=num_images)
        for w in range(workers)
    ]
    return np.concatenate([e for e, _ in parts]), np.concatenate([i for _, i in parts])


def test_an_epoch_is_a_permutation_of_the_whole_training_set():
    order = permutation(1, 0, 1000)
    assert sorted(order) == list(range(1000))
    assert not np.array_equal(order, np.arange(1000))


def test_images_move_through_the_whole_epoch():
    """A buffer of 1,024 images, say, would leave each near its place; a shuffle moves it N / 3."""
    order = permutation(1, 0, 30_000)
    assert abs(np.abs(order - np.arange(30_000)).mean() / 10_000 - 1) < 0.03


def test_the_order_is_the_same_on_every_machine_and_numpy():
    """These come from a C program after Salmon et al. 2011 (Philox4x64-10), not from this code."""
    assert permutation(1, 0, 10).tolist() == FIRST
    assert permutation(2**63 - 1, 89, 10).tolist() == LAST
    order = permutation(1, 0, 1_281_167)
    assert hashlib.sha256(order.astype("<i4").tobytes()).hexdigest() == IMAGENETS


def test_any_place_is_equally_likely_for_any_image():
    """Chi-squared of 20 images at 20 places, of 4,000 epochs: 361 degrees of freedom."""
    counts = np.zeros((20, 20))
    for epoch in range(4000):
        counts[np.arange(20), permutation(7, epoch, 20)] += 1
    chi2 = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi2 - 361) < 5 * np.sqrt(2 * 361)


@pytest.mark.parametrize("num_images", [1, 2, 3, 1023, 1024, 1025])
def test_sets_of_every_length_are_permuted(num_images):
    assert sorted(permutation(5, 2, num_images)) == list(range(num_images))


def test_epochs_and_seeds_are_shuffled_differently():
    assert not np.array_equal(permutation(1, 0, 1000), permutation(1, 1, 1000))
    assert not np.array_equal(permutation(1, 0, 1000), permutation(2, 0, 1000))


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


def test_an_imagenet_epoch_is_planned_in_little_memory():
    """Under 50 MB at the highest, of which the permutation kept is 5 MB."""
    permutation.cache_clear()
    tracemalloc.start()
    _, ids = images_at(1, 0, 8192, 1_281_167)
    heights = widths = np.full(len(ids), 500)
    training_windows(Stream(1, np.zeros_like(ids), ids), heights, widths, 0.08, 4 / 3)
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    permutation.cache_clear()
    assert highest < 50e6
