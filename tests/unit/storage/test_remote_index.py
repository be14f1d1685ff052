"""The index of a server: there, whole, the same for all nodes, or one line."""

import shutil
from dataclasses import replace

import pytest
from support.object_store import CLOSED, FaultyServer, is_tar, settings_of

from dali_pipeline.dataset.index_file import open_splits, save_index
from dali_pipeline.dataset.open_remote import open_alone, open_remote
from dali_pipeline.storage.client import Client
from dali_pipeline.storage.range_server import Handler
from hvd_utils.cli.errors import BadInput


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
