"""Reading from a server that is slow, fails, breaks off or stalls: the right bytes or one line."""

import os
import shutil
import threading
from dataclasses import replace

import pytest
from support.object_store import FaultyServer, is_tar, settings_of, some_ids

from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.open_data import check_data
from dali_pipeline.dataset.open_remote import open_alone
from dali_pipeline.storage.client import Client
from dali_pipeline.storage.range_server import Handler
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings


@pytest.mark.parametrize("shuffle", ["global", "window"])
@pytest.mark.parametrize("kind", [None, 500, 503, 429, "break", "stall"])
def test_no_byte_is_wrong_or_lost(data, tmp_path, shuffle, kind):
    """Each shard's second request fails, and the first one for the index; one of all stalls."""

    def fault(path, number):
        if kind == "stall" and path != "/train/000000.tar":
            return None
        return kind if number == (2 if is_tar(path) else 1) else None

    local = open_splits(data)
    with FaultyServer(data, fault) as server:
        settings = settings_of(server.url, tmp_path, shuffle=shuffle, storage_patience=30)
        remote = open_alone(settings)
        for ours, theirs in zip(local, remote, strict=True):
            assert theirs.digest() == ours.digest()
            ids = some_ids(ours).tolist()
            theirs.expect(ids[:-3])
            assert [theirs.read(i) for i in ids] == [ours.read(i) for i in ids]
        server.fault = lambda path, number: None
        asked = server.requests
        again = open_alone(settings)[0]
        ids = range(len(again))
        assert [again.read(i) for i in ids] == [local[0].read(i) for i in ids]
        assert server.requests <= asked + 6  # looks at the index and the shards alone


def test_blocks_are_few_requests(data, tmp_path):
    with FaultyServer(data) as server:
        train, _ = open_alone(settings_of(server.url, tmp_path, shuffle="window"))
        ids = range(len(train))
        train.expect(ids)
        assert all(map(train.read, ids))
        asked = [path for path, _ in server.seen if path.startswith("/train/")]
        assert sorted(asked) == sorted(f"/train/{shard}" for shard in train.shards)


def test_many_requests_are_in_flight(data, tmp_path):
    """The answers wait for one another: one at a time, they would wait for ever."""
    together = 16
    with FaultyServer(data) as server:
        train, _ = open_alone(settings_of(server.url, tmp_path))
        meeting = threading.Barrier(together, timeout=120)

        def meet(path, number):
            meeting.wait()

        server.fault = meet
        train.expect(range(together))
        assert all(map(train.read, range(together)))


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (500, "error 500, tried again until --storage-patience was over"),
        (404, r"000000.tar does not exist \(404\)"),
        (403, r"refused \(403\): check the keys"),
        ("break", "body"),
    ],
)
def test_a_storage_that_fails_for_good_is_one_line(data, tmp_path, kind, line):
    """It is no bad image, which may be skipped."""
    with FaultyServer(data) as server:
        train, _ = open_alone(settings_of(server.url, tmp_path, storage_patience=0.6))
        server.fault = lambda path, number: kind
        train.expect([0, 1])
        for image in (0, 1, 2):
            with pytest.raises(BadInput, match=line) as caught:
                train.read(image)
            assert type(caught.value) is BadInput
            assert "\n" not in str(caught.value)


def test_a_shard_that_is_cut_off_is_a_bad_image(data, tmp_path):
    """As in a folder: the file is at fault."""
    with FaultyServer(data) as server:
        train, _ = open_alone(settings_of(server.url, tmp_path))
        longer = replace(train, file_bytes=train.file_bytes + 10**6)
        with pytest.raises(BadInput, match="its shard ends too early"):
            longer.read(0)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("gs://bucket/x", "nothing here reads gs://; give a folder, s3://"),
        ("s3:///x", "names no bucket: give s3://BUCKET/PREFIX"),
        ("https:///x", "names no host: give https://HOST/PATH"),
        ("https://user:secret@host/x?key=1", "--data https://host/x has a user, a query"),
        ("https://host/x?X-Amz-Signature=secret", "--data https://host/x has a user, a query"),
        ("s3://KEY:a/secret@bucket/x", "--data s3://bucket/x is no URL"),
        ("s3a://KEY:secret@bucket/x", "--data s3a://bucket/x: nothing here reads s3a://"),
        ("https://KEY:secret@[host/x", r"--data https://\[host/x is no URL"),
        ("s3://localhost:9000/bucket", "has a port: set AWS_ENDPOINT_URL"),
    ],
)
def test_an_address_that_cannot_be_is_named_at_once(url, line):
    with pytest.raises(BadInput, match=line) as caught:
        check_data(Settings(recipe="test", data=url))
    assert "secret" not in str(caught.value)


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="read by obstore, which is not installed: pip install"):
        check_data(Settings(recipe="test", data="s3://bucket/x"))


def test_a_cache_of_a_local_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="--cache .* has no effect"):
        check_data(Settings(recipe="test", data=str(tmp_path), cache=tmp_path))


def test_s3_by_its_endpoint_unsigned(data, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket/prefix").symlink_to(data)
    with FaultyServer(tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        train, _ = open_alone(settings_of("s3://bucket/prefix/", tmp_path / "cache"))
        ours, _ = open_splits(data)
        assert [train.read(i) for i in (0, 60)] == [ours.read(i) for i in (0, 60)]
        assert server.seen[-1][0].startswith("/bucket/prefix/train/")
        with pytest.raises(BadInput, match="no train.index.npz at s3://nothing/prefix"):
            open_alone(settings_of("s3://nothing/prefix", tmp_path / "cache"))


def test_a_forked_process_is_refused_instead_of_waiting_for_ever(data, monkeypatch):
    with FaultyServer(data) as server:
        path = f"{server.url}/train.index.npz"
        client = Client(server.url)
        client.fetch(path, 0, 4)
        monkeypatch.setattr("os.getpid", lambda: 0)  # as in a child
        reads = [lambda: client.stat(path), lambda: client.fetch(path, 0, 4)]
        for read in (*reads, lambda: client.list(server.url)):
            with pytest.raises(BadInput, match="forked cannot read .* start processes by 'spawn'"):
                read()


@pytest.mark.parametrize("tagged", [True, False])
def test_a_shard_that_is_replaced_during_a_run_is_noticed(data, tmp_path, monkeypatch, tagged):
    """By its ETag, or by size and time where its server has none; at no request more."""
    send = Handler.send_header
    monkeypatch.setattr(
        Handler, "send_header", lambda *a: send(*a) if tagged or a[1] != "ETag" else None
    )
    served = shutil.copytree(data, tmp_path / "served")
    with FaultyServer(served) as server:
        train, _ = open_alone(settings_of(server.url, tmp_path / "cache"))
        asked = server.requests
        assert train.read(0) == open_splits(data)[0].read(0)
        shard = served / "train/000000.tar"
        os.utime(shard, (1, 1))  # the same bytes, for all we know, of other images
        train.expect([1])
        line = r"/train/000000.tar was replaced while this job read it \(.* at first, now .*\)"
        with pytest.raises(BadInput, match=line) as caught:
            train.read(1)
        assert type(caught.value) is BadInput
        assert train.read(0)  # it is in the cache, as it was
        assert server.requests == asked + 2
