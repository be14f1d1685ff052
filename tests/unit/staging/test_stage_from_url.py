"""python -m dali_pipeline.stage URL DESTINATION: the shards and their index, whole."""

import os

import pytest
from support.object_store import FaultyServer, packed_jpegs

from dali_pipeline import stage
from dali_pipeline.dataset.index_file import open_splits
from hvd_utils.cli.errors import BadInput


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return packed_jpegs(
        tmp_path_factory.mktemp("data"), {"ant": 20, "bee": 20}, {"ant": 3, "bee": 3}
    )


def test_it_brings_what_training_reads(data, tmp_path, capsys):
    """Though each file's first request fails; again, it copies nothing but what differs."""
    copy = tmp_path / "copy"
    with FaultyServer(data, lambda path, number: 503 if number == 1 else None) as server:
        stage.main([server.url, str(copy)])
        for ours, theirs in zip(open_splits(data), open_splits(copy), strict=True):
            assert ours.digest() == theirs.digest()
            assert all(ours.read(i) == theirs.read(i) for i in range(len(ours)))
        stage.main([server.url, str(copy)])
        assert "nothing to copy" in capsys.readouterr().out
        shard = copy / "train/000000.tar"
        status = shard.stat()
        shard.write_bytes(bytes(status.st_size))
        os.utime(shard, ns=(status.st_mtime_ns, status.st_mtime_ns))
        stage.main([server.url, str(copy), "--verify"])
    assert shard.read_bytes() == (data / "train/000000.tar").read_bytes()


def test_a_shard_that_is_missing_is_named(data, tmp_path):
    def fault(path, number):
        return 404 if path.endswith("/000001.tar") else None

    with (
        FaultyServer(data, fault) as server,
        pytest.raises(BadInput, match="000001.tar is missing since its index was made"),
    ):
        stage.main([server.url, str(tmp_path / "copy")])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ftp://host/x"], "SOURCE ftp://host/x: nothing here reads ftp://"),
        (["s3://bucket/x", "--pack"], "s3://bucket/x has to be packed already: leave out --pack"),
    ],
)
def test_a_source_that_cannot_be_is_refused(arguments, line, tmp_path):
    with pytest.raises(BadInput, match=line):
        stage.main([arguments[0], str(tmp_path / "copy"), *arguments[1:]])
