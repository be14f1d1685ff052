"""Images from a server are those of the folder, to the bit, whichever order and loader."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.loaders import CPU, SETTINGS
from support.object_store import FaultyServer, packed_jpegs

from dali_pipeline.benchmarking.storage_cost import measure
from dali_pipeline.dataset.index import synthetic_index
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.open_data import describe
from dali_pipeline.dataset.open_remote import open_alone
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return packed_jpegs(
        tmp_path_factory.mktemp("data"), {"ant": 20, "bee": 20}, {"ant": 5, "bee": 6}
    )


def batches(splits, settings, kind):
    plan = Plan(*splits, settings, [range(2)], 0, 1)
    loader = make_loader(kind, plan, device=CPU, threads=1)
    return [*loader.training(3, 9), *loader.validation()]  # from one epoch into the next


@pytest.mark.parametrize(
    ("shuffle", "kind"), [("global", "dali"), ("window", "dali"), ("window", "torchvision")]
)
def test_every_batch_is_that_of_the_folder(data, tmp_path, shuffle, kind):
    """Each third answer breaks off."""
    changes = {"shuffle": shuffle, "shuffle_window": 16, "cache": tmp_path}
    with FaultyServer(data, lambda path, number: "break" if number % 3 == 2 else None) as server:
        settings = SETTINGS.model_copy(update={**changes, "data": server.url})
        theirs = batches(open_alone(settings), settings, kind)
    ours = batches(open_splits(data), settings, kind)
    for (images, labels), (expected, expected_labels) in zip(theirs, ours, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_the_benchmark_counts_requests_and_bytes(data):
    alone, blocks = (measure(data, shuffle, 0, batch=8) for shuffle in ("global", "window"))
    images = open_splits(data)[0].file_bytes.mean() / 1000
    assert alone.requests == 1
    assert alone.kilobytes == pytest.approx(images, rel=1e-6)
    assert blocks.requests == len(open_splits(data)[0].shards) / 40  # each is less than a block
    assert blocks.kilobytes > images


@pytest.mark.parametrize(("labels", "warned"), [([0] * 50 + [1] * 50, True), ([0, 1] * 50, False)])
def test_shards_whose_neighbours_are_of_one_class_are_warned_of(labels, warned):
    """In a window, that would be minibatches of few classes."""
    index = replace(synthetic_index(100, 2), labels=np.array(labels, np.int32))
    settings = SETTINGS.model_copy(update={"shuffle": "window", "data": "https://host/shards"})
    assert ("in the shards are of one class" in describe(settings, index, index)) == warned
    few = replace(synthetic_index(1, 2), labels=np.array([0], np.int32))
    assert "of one class" not in describe(settings, few, few)
