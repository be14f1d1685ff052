"""One global shuffle an epoch, split among the workers (Remark 4)."""

import tracemalloc

import numpy as np

from dali_pipeline.augment import Stream, training_windows
from dali_pipeline.order import images_at, pass_images, permutation, worker_images


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
