"""The computed order is a shuffle by what tests of shuffles look at. Seeds are fixed: no luck."""

from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest

from dali_pipeline.sampling.bijection import bases, images_of_places

# Powers of two, squares, primes and what lies beside them.
LENGTHS = [1009, 1024, 4099, 10_000, 65_535, 65_536, 65_537, 10**6 + 3]
SIGMAS = 4.5  # of some hundred statistics that are compared, none is as far off by chance


def order(length, epoch=0, seed=11):
    return images_of_places(seed, epoch, np.arange(length), length)


def chi2_sigmas(counts, expected):
    """Return how many standard deviations chi-squared of ``counts`` is off."""
    freedom = np.size(counts) - 1
    chi2 = ((np.asarray(counts) - expected) ** 2 / expected).sum()
    return abs(chi2 - freedom) / np.sqrt(2 * freedom)


def correlation_sigmas(first, second):
    return abs(np.corrcoef(first, second)[0, 1]) * np.sqrt(len(first))


@pytest.mark.parametrize(("length", "each"), [(2, 200), (3, 100), (4, 60), (5, 20), (6, 5)])
def test_of_few_images_every_permutation_is_equally_likely(length, each):
    every = list(permutations(range(length)))
    seen = Counter(tuple(order(length, epoch).tolist()) for epoch in range(each * len(every)))
    assert chi2_sigmas([seen[one] for one in every], each) < SIGMAS


@pytest.mark.parametrize("length", [7, 9, 12, 16])
def test_every_pair_of_images_is_equally_likely_side_by_side(length):
    pairs = [pair for pair in product(range(length), repeat=2) if pair[0] != pair[1]]
    draws = 15 * len(pairs)
    seen: Counter = Counter()
    for epoch in range(draws):
        seen[tuple(images_of_places(3, epoch, np.array([0, 1]), length).tolist())] += 1
    assert chi2_sigmas([seen[pair] for pair in pairs], 15) < SIGMAS


@pytest.mark.parametrize("length", [9, 16, 25])
def test_half_of_the_permutations_are_odd(length):
    """A network of two odd bases makes even ones alone."""
    odd = 0
    for epoch in range(400):
        ids = order(length, epoch)
        inversions = sum((ids[:place] > ids[place]).sum() for place in range(length))
        odd += inversions % 2
    assert abs(odd - 200) < SIGMAS * 10


@pytest.mark.parametrize("length", LENGTHS)
def test_an_epoch_looks_like_a_shuffle(length):
    ids = order(length)
    assert np.array_equal(np.sort(ids), np.arange(length))
    # Of a place's number the image tells nothing, be it by thirds or by tenths.
    for parts in (3, 10):
        table = np.zeros((parts, parts))
        np.add.at(table, (np.arange(length) * parts // length, ids * parts // length), 1)
        assert chi2_sigmas(table.ravel(), length / parts**2) < SIGMAS
    assert correlation_sigmas(np.arange(length), ids) < SIGMAS
    # Nor do those before, side by side or as far apart as the network's bases.
    for lag in {1, 2, 3, *bases(length)}:
        assert correlation_sigmas(ids[:-lag], ids[lag:]) < SIGMAS, lag
        differences = np.bincount((ids[lag:] - ids[:-lag]) % length * 20 // length, minlength=20)
        assert chi2_sigmas(differences, (length - lag) / 20) < SIGMAS, lag
    # Half of the neighbours rise (Knuth, volume 2, 3.3.2), and about one image stays in its place.
    rises = (ids[1:] > ids[:-1]).sum()
    assert abs(rises - (length - 1) / 2) < SIGMAS * np.sqrt((length + 1) / 12)
    assert (ids == np.arange(length)).sum() < 8


@pytest.mark.parametrize("length", LENGTHS)
def test_epochs_and_seeds_tell_nothing_of_each_other(length):
    ids = order(length)
    for other in (order(length, 1), order(length, 2), order(length, 0, 12), order(length, 0, 10)):
        assert correlation_sigmas(ids, other) < SIGMAS
        assert (ids == other).sum() < 8  # one on average
        shift = np.bincount((ids - other) % length * 20 // length, minlength=20)
        assert chi2_sigmas(shift, length / 20) < SIGMAS


@pytest.mark.parametrize("length", [*LENGTHS, 10**9 + 7, 10**12, 2**62])
def test_a_place_has_any_image_over_the_epochs(length):
    """The first 50 places of 60 epochs, by twentieths of the set."""
    seen = np.zeros(20)
    for epoch in range(60):
        ids = images_of_places(5, epoch, np.arange(50), length)
        assert len(set(ids.tolist())) == 50
        np.add.at(seen, (ids // (length // 20 + 1)), 1)
    assert chi2_sigmas(seen, 150) < SIGMAS


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 255, 256, 257, 10**9, 2**62])
def test_the_network_is_hardly_larger_than_the_set(length):
    a, b = bases(length)
    assert a % 2 == 0
    assert length <= a * b < length + a
    assert abs(a - b) <= 3


def test_a_place_does_not_depend_on_what_else_is_asked_for():
    whole = order(1000)
    assert images_of_places(11, 0, np.array([999, 3, 500]), 1000).tolist() == [
        whole[999],
        whole[3],
        whole[500],
    ]
    assert len(images_of_places(11, 0, np.array([], int), 1000)) == 0
