"""Images packed by ``prepare --pack``, and WebDataset, which reads such shards."""

from __future__ import annotations

import os

from dali_pipeline.benchmarking.bench import Bench, Missing, Stream, needed
from dali_pipeline.benchmarking.peers import on_device, training_transform, workers
from dali_pipeline.dataset.index import Index
from dali_pipeline.dataset.index_file import index_path, load_index
from dali_pipeline.preparation.pack import pack
from dali_pipeline.preparation.shard import Encoding

SHUFFLED = 1000  # images in webdataset's buffer


def webdataset(bench: Bench) -> Stream:
    """Return the stream of WebDataset from plain tars, with torchvision's decoder.

    It cannot follow our order: it shuffles in a buffer.
    """
    wds = needed("webdataset", "pip install webdataset")
    shard_bytes = int(bench.plan.train.file_bytes.sum()) // (4 * bench.threads) + 1
    index = packed(bench, "shards", Encoding(None, 0), shard_bytes)
    shards = [os.path.join(index.root, shard) for shard in index.shards]
    dataset = (
        wds.WebDataset(shards, shardshuffle=len(shards))
        .repeat()
        .shuffle(SHUFFLED)
        .to_tuple("jpg;png")
        .map_tuple(training_transform(bench.plan.settings))
        .batched(bench.plan.training_size, partial=False)
    )
    batches = wds.WebLoader(dataset, batch_size=None, **workers(bench))
    images = (images for (images,) in batches)
    return Stream("webdataset: tars, torchvision's decoder", on_device(images, bench))


def packed(bench: Bench, name: str, encoding: Encoding, shard_bytes: int) -> Index:
    """Return the training images as shards in a folder ``name`` of the scratch folder."""
    train, val = bench.plan.train, bench.plan.val
    if train.packed:
        raise Missing("it is written from class folders, and the images are packed already")
    folder = bench.scratch / name
    pack((train, val), folder, encoding, shard_bytes, bench.threads)
    return load_index(index_path(folder, "train"), folder / "train")
