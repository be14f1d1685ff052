"""Reading from a server that is slow, fails, breaks off or stalls: the right bytes or one line."""

import os
import shutil
import threading
from dataclasses import replace

import pytest
from support.object_store import CLOSED, FaultyServer, packed_jpegs, some_ids

from dali_pipeline.dataset.index_file import open_splits, save_index
from dali_pipeline.dataset.open_data import check_data
from dali_pipeline.dataset.open_remote import open_alone, open_remote
from dali_pipeline.storage.cache import Cache
from dali_pipeline.storage.client import Client, Stat
from dali_pipeline.storage.interface import Piece
from dali_pipeline.storage.range_server import Handler
from dali_pipeline.storage.remote import AHEAD, BLOCK, BlockReader, cover
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return packed_jpegs(
        tmp_path_factory.mktemp("data"), {"ant": 30, "bee": 31}, {"ant": 5, "bee": 6}
    )


def settings_of(url, cache, **changes):
    given = {"storage_patience": 120, **changes}
    return Settings(recipe="test", data=url, cache=cache, **given)


def is_tar(path):
    return path.endswith(".tar")


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


def test_a_host_that_does_not_answer_and_an_index_that_is_not_there(data, tmp_path):
    with pytest.raises(BadInput, match=r"Connection refused.*check the address"):
        open_alone(settings_of(CLOSED, tmp_path, storage_patience=0.3))
    with (
        FaultyServer(data / "train") as server,
        pytest.raises(BadInput, match=r"no train.index.npz at http.*prepare FOLDER --pack"),
    ):
        open_alone(settings_of(server.url, tmp_path))


def test_an_index_that_does_not_fit_the_shards_is_refused(data, tmp_path):
    def fault(path, number):
        return 404 if is_tar(path) else None

    with (
        FaultyServer(data, fault) as server,
        pytest.raises(BadInput, match=r"000000.tar is missing since its index was made"),
    ):
        open_alone(settings_of(server.url, tmp_path))
    with (
        FaultyServer(data) as server,
        pytest.raises(BadInput, match="for which --cache has no room: raise --cache-size"),
    ):
        open_alone(settings_of(server.url, tmp_path / "small", cache_size="1KB"))


@pytest.mark.parametrize("damage", ["cut off", "a byte"])
def test_an_index_that_a_power_cut_damaged_is_brought_anew(data, tmp_path, damage):
    with FaultyServer(data) as server:
        settings = settings_of(server.url, tmp_path)
        open_alone(settings)
        (path,) = tmp_path.glob("*/index/train.index.npz")
        content = path.read_bytes()
        half = len(content) // 2
        path.unlink()  # else what is mapped of it would change
        path.write_bytes(
            content[:half]
            if damage == "cut off"
            else content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        )
        train, _ = open_alone(settings)
        assert train.digest() == open_splits(data)[0].digest()
        assert path.read_bytes() == content


def test_another_index_is_noticed_where_the_server_tells_no_time(data, tmp_path, monkeypatch):
    """Of the same length: two images changed their labels."""
    send = Handler.send_header
    monkeypatch.setattr(
        Handler,
        "send_header",
        lambda self, name, value: name in ("ETag", "Last-Modified") or send(self, name, value),
    )
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    with FaultyServer(folder) as server:
        settings = settings_of(server.url, tmp_path / "cache")
        before, _ = open_alone(settings)
        labels = before.labels.copy()
        labels[[0, -1]] = labels[[-1, 0]]
        save_index(folder / "train.index.npz", replace(before, labels=labels))
        after, _ = open_alone(settings)
    assert after.labels.tolist() == labels.tolist() != before.labels.tolist()


def test_an_index_that_nodes_see_differently_is_told(data, tmp_path):
    class World:
        local_rank, is_root = 0, True

        def broadcast(self, value):
            return value

        def gather(self, value):
            return [value, "", "of another node", ""]

    with (
        FaultyServer(data) as server,
        pytest.raises(BadInput, match="is not the same for all nodes: it changed just now"),
    ):
        open_remote(settings_of(server.url, tmp_path), World())


def test_the_index_is_brought_with_the_patience_that_is_set(data, tmp_path, monkeypatch):
    """The first look alone is short of it: a large index takes longer."""
    patience = {}

    class Noted(Client):
        def __init__(self, url, seconds):
            super().__init__(url, seconds)
            self.seconds = seconds

        def fetch(self, path, *part):
            patience[path.rpartition("/")[2]] = self.seconds
            return super().fetch(path, *part)

    monkeypatch.setattr("dali_pipeline.dataset.open_remote.Client", Noted)
    with FaultyServer(data) as server:
        open_alone(settings_of(server.url, tmp_path, storage_patience=500))
    assert patience == {"train.index.npz": 500, "val.index.npz": 500}


def test_a_cache_that_cannot_be_used_is_one_line(data, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("dali_pipeline.dataset.open_remote.locked", refuse)
    with (
        FaultyServer(data) as server,
        pytest.raises(BadInput, match=r"cannot use --cache .*index.lock: Permission denied; make"),
    ):
        open_alone(settings_of(server.url, tmp_path))


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


class Shards:
    """A client of one shard, of which so many bytes are there."""

    def __init__(self, length):
        self.data = os.urandom(length)
        self.there = length

    def require(self, path, offset, length):
        data = memoryview(self.data[: self.there])[offset : offset + length]
        return data, Stat(self.there, 0, None)


def test_a_block_that_was_kept_while_its_shard_was_shorter_makes_no_image_bad(tmp_path):
    shards = Shards(3000)
    shards.there = 1500  # as while it is uploaded to a web server
    pieces = [Piece("a", 1000 * i, 1000) for i in range(3)]
    reader = BlockReader(shards, Cache(tmp_path, "a", 10**9, replaces=True))
    reader.expect(pieces)
    assert [len(reader.read(piece)) for piece in pieces] == [1000, 500, 0]
    shards.there = 3000
    again = BlockReader(shards, Cache(tmp_path, "a", 10**9, replaces=True))
    assert b"".join(map(again.read, pieces)) == shards.data


def test_announced_images_take_bounded_memory_where_no_block_is_kept(tmp_path):
    count = 3 * AHEAD
    shards = Shards(count * 10)
    reader = BlockReader(shards, Cache(tmp_path, "a", 1, replaces=True))
    reader._cache.full = True
    pieces = [Piece("a", 10 * i, 10) for i in range(count)]
    reader.expect(pieces)
    data = []
    for piece in pieces:
        assert len(reader._coming) <= AHEAD
        data.append(reader.read(piece))
    assert b"".join(data) == shards.data
    assert not reader._coming
    assert not reader._waiting


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


def test_a_piece_in_several_blocks_is_read_from_them(tmp_path, monkeypatch):
    monkeypatch.setattr("dali_pipeline.storage.remote.BLOCK", 1000)
    shards, asked = Shards(3000), []
    require = shards.require
    monkeypatch.setattr(shards, "require", lambda *part: asked.append(part) or require(*part))
    reader = BlockReader(shards, Cache(tmp_path, "a", 10**9, replaces=True))
    piece = Piece("a", 500, 2000)
    reader.expect([piece])
    assert reader.read(piece) == shards.data[500:2500]
    assert sorted(asked) == [("a", start, 1000) for start in (0, 1000, 2000)]


def test_blocks_cover_a_piece():
    assert list(cover(Piece("a", BLOCK - 3, BLOCK + 5))) == [
        (Piece("a", 0, BLOCK), BLOCK - 3, 3),
        (Piece("a", BLOCK, BLOCK), 0, BLOCK),
        (Piece("a", 2 * BLOCK, BLOCK), 0, 2),
    ]


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
