"""--shuffle window: shards in random order, images within windows, one order for any ranks."""

from dataclasses import replace

import numpy as np
import pytest

from dali_pipeline.dataset.index import Index
from dali_pipeline.sampling.order import images_at, pass_images
from dali_pipeline.sampling.plan import Plan
from dali_pipeline.sampling.windows import WindowOrder, window_order
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings

SHARDS = [40, 0, 25, 61, 33, 48]  # images of each
IMAGES = sum(SHARDS)

KEPT = [130, 135, 133, 83, 90, 88, 48, 56, 51, 195, 202, 197]  # of seed 1, epoch 0
KEPT_LAST = [197, 202, 203, 204, 206, 205]  # of seed 2^63 - 1, epoch 89


def index_of(shards):
    images = sum(shards)
    column = np.ones(images, np.int32)
    return Index(
        "data/train", ("a",), np.zeros(images, "S1"), 0 * column, column, column,
        column.astype(np.int64), tuple(map(str, range(len(shards)))),
        np.repeat(np.arange(len(shards), dtype=np.int32), shards), column.astype(np.int64),
    )  # fmt: skip


def order_of(workers=4, batch=3, window=40, shards=SHARDS):
    return window_order(index_of(shards), workers, batch, window)


def epoch_of(order, seed=1, epoch=0):
    return order(seed, epoch, np.arange(order.begins[-1]))


@pytest.mark.parametrize(
    ("workers", "batch", "window", "shards"),
    [(4, 3, 40, SHARDS), (1, 7, 10**6, SHARDS), (3, 5, 1, [17]), (2, 1, 4, [1, 2, 1, 3])],
)
def test_each_image_comes_once_an_epoch(workers, batch, window, shards):
    order = order_of(workers, batch, window, shards)
    for epoch in range(3):
        assert sorted(epoch_of(order, epoch=epoch)) == list(range(sum(shards)))


def test_a_place_is_the_same_whatever_is_asked_with_it():
    order = order_of()
    whole = epoch_of(order)
    some = np.array([5, 180, 77, 5])
    np.testing.assert_array_equal(order(1, 0, some), whole[some])


def test_epochs_and_seeds_have_orders_of_their_own():
    order = order_of()
    orders = [epoch_of(order, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({one.tobytes() for one in orders}) == 4


def test_a_worker_reads_its_windows_one_after_the_other():
    """The images of a window are neighbours in the sequence of shards, but not in order."""
    order = order_of(workers=4, batch=3, window=40)  # 10 a worker
    steps = IMAGES // 12
    identity = replace(order, window=1)  # the sequence of shards itself
    for worker in range(4):
        at = (np.arange(steps)[:, None] * 12 + worker * 3 + np.arange(3)).ravel()
        mine, sequence = order(1, 0, at), identity(1, 0, at)
        for begin in range(0, len(at), 10):
            window = slice(begin, begin + 10)
            assert sorted(mine[window]) == sorted(sequence[window])
        assert (mine != sequence).mean() > 0.7


def test_shards_come_whole_in_a_random_order():
    order = WindowOrder(order_of().begins, workers=1, batch=1, window=1)
    firsts = set()
    for epoch in range(20):
        shard = np.searchsorted(order.begins, epoch_of(order, epoch=epoch), side="right")
        changes = np.flatnonzero(np.diff(shard)) + 1
        assert len(changes) == len([s for s in SHARDS if s]) - 1
        firsts.add(int(shard[0]))
    assert len(firsts) == 5  # each that is not empty


def test_every_arrangement_of_a_window_is_as_likely():
    order = WindowOrder(np.array([0, 3]), workers=1, batch=1, window=3)
    seen = [tuple(epoch_of(order, epoch=epoch)) for epoch in range(1200)]
    counts = np.array([seen.count(one) for one in set(seen)])
    assert len(counts) == 6
    assert ((counts - 200) ** 2 / 200).sum() < 25  # chi-squared of 5: 0.01 % are above


def test_the_order_is_kept():
    """Of another one, a run that goes on would see some images twice and others never."""
    assert epoch_of(order_of(), 1, 0)[:12].tolist() == KEPT
    assert epoch_of(order_of(), 2**63 - 1, 89)[-6:].tolist() == KEPT_LAST


def test_one_trajectory_on_any_number_of_processes():
    sizes = {"workers": 4, "batch": 3, "num_images": IMAGES, "order": order_of()}
    for step in (0, 16, 17, 18):  # into the next epoch
        _, whole = pass_images(1, step, range(4), **sizes)
        parts = [pass_images(1, step, part, **sizes)[1] for part in (range(0, 1), range(1, 4))]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(whole))
        _, laid_out = images_at(1, step * 12, 12, IMAGES, order_of())
        np.testing.assert_array_equal(whole.reshape(3, 4).T.ravel(), laid_out)


def plan_of(index, **settings):
    given = {"recipe": "test", "workers": 4, "batch_per_worker": 3, "shuffle": "window"}
    return Plan(index, index, Settings(**given, **settings), [range(4)], 0, 1)


def test_a_run_goes_on_with_the_shards_it_began_with():
    facts = plan_of(index_of(SHARDS)).data_facts()
    others = plan_of(index_of([*SHARDS[:-2], *SHARDS[:-3:-1]])).data_facts()
    assert facts["train_digest"] == others["train_digest"]
    assert facts["shards"] != others["shards"]


def test_the_shuffle_is_part_of_the_experiment():
    """So a run does not go on with another; see ``checkpoint.check_experiment``."""
    experiment = plan_of(index_of(SHARDS), shuffle_window=24).settings.experiment()
    assert (experiment["shuffle"], experiment["shuffle_window"]) == ("window", 24)


def test_without_shards_it_is_refused():
    folders = replace(index_of(SHARDS), shards=(), shard=None, offset=None)
    with pytest.raises(BadInput, match=r"--shuffle window .* data/train has none: pack them"):
        plan_of(folders)
