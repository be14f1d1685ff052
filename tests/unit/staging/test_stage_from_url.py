"""python -m dali_pipeline.stage URL DESTINATION: the shards and their index, whole."""

import os
import shutil

import pytest
from support.object_store import FaultyServer, packed_jpegs

from dali_pipeline import stage
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.staging import sources
from dali_pipeline.storage.range_server import Handler
from hvd_utils.cli.errors import BadInput

UNTOLD = ("Last-Modified", "ETag")


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


def test_a_shard_is_brought_anew_where_its_server_tells_no_time(data, tmp_path, monkeypatch):
    """Though it is as long as the old one."""
    send = Handler.send_header
    monkeypatch.setattr(
        Handler, "send_header", lambda self, *of: None if of[0] in UNTOLD else send(self, *of)
    )
    source, copy = shutil.copytree(data, tmp_path / "source"), tmp_path / "copy"
    shard = source / "train/000000.tar"
    with FaultyServer(source) as server:
        stage.main([server.url, str(copy)])
        shard.write_bytes(bytes(shard.stat().st_size))
        stage.main([server.url, str(copy)])
    assert (copy / "train/000000.tar").read_bytes() == shard.read_bytes()


def test_an_object_that_is_replaced_while_it_is_copied_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PART", 10)
    (tmp_path / "x").write_bytes(bytes(20))
    with FaultyServer(tmp_path) as server:
        parts = sources.ObjectStore(server.url).chunks("x")
        next(parts)
        os.utime(tmp_path / "x", (1, 1))
        with pytest.raises(BadInput, match="/x was replaced while it was copied: start again"):
            next(parts)


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
