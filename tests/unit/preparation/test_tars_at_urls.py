"""Tars at a URL give the index that they give in a folder, and are read from there."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import torch
from support.loaders import CPU, SETTINGS
from support.object_store import FaultyHandler, FaultyServer
from support.preparing import add, jpeg

from dali_pipeline import prepare, stage
from dali_pipeline.dataset.index_file import load_index, open_splits
from dali_pipeline.dataset.open_data import check_data, open_dataset
from dali_pipeline.dataset.open_remote import open_alone
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.preparation.tars import tar_samples
from dali_pipeline.preparation.tars.listing import expand
from dali_pipeline.sampling.plan import Plan
from dali_pipeline.storage.client import Client
from dali_pipeline.storage.remote_file import LEAST, RemoteFile
from hvd_utils.cli.errors import BadInput

COLUMNS = ("names", "labels", "heights", "widths", "file_bytes", "shard", "offset")
LARGE = 20 * LEAST
WORLD = SimpleNamespace(
    is_root=True, local_rank=0, broadcast=lambda value: value, gather=lambda value: [value]
)


class Store(FaultyServer):
    """Also lists a bucket as S3 does, and answers whole files where ``whole``."""

    whole = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.RequestHandlerClass = StoreHandler


class StoreHandler(FaultyHandler):
    def answer(self, body: bool) -> None:
        if self.server.whole and body:
            del self.headers["Range"]
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" not in query:
            super().answer(body)
            return
        bucket = self.server.folder / urlsplit(self.path).path.strip("/")
        keys = sorted(str(p.relative_to(bucket)) for p in bucket.rglob("*") if p.is_file())
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><ETag>x</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
            if key.startswith(query.get("prefix", [""])[0])
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def write(path: Path, numbers: range) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            more = LARGE * (number % 2)  # behind the image's end, which decoders pass over
            add(tar, f"{number:04d}.jpg", jpeg(number) + bytes(more))
            add(tar, f"{number:04d}.cls", str(number % 3).encode())


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "bucket/set"
    for shard in range(3):
        write(folder / f"train/a-{shard:03d}.tar", range(8 * shard, 8 * shard + 8))
    write(folder / "val/v-0.tar", range(30, 36))
    return folder


def run(*options: object) -> None:
    prepare.main(["--from-shards", *map(str, options), "--processes", "1"])


def of(server: Store) -> tuple[str, str]:
    return f"{server.url}/train/a-{{000..002}}.tar", f"{server.url}/val/v-0.tar"


def assert_same(ours: Path, theirs: Path) -> None:
    for split in ("train", "val"):
        local, remote = (load_index(f / f"{split}.index.npz", f / split) for f in (ours, theirs))
        assert remote.digest() == local.digest()
        assert remote.shards == local.shards
        for column in COLUMNS:
            assert getattr(remote, column).tolist() == getattr(local, column).tolist()


def test_an_index_of_urls_is_that_of_the_folder_and_so_is_every_batch(data, tmp_path):
    output = tmp_path / "index"
    with Store(data) as server:
        run(*of(server), "--output", output)
        tars = sum(path.stat().st_size for path in data.glob("*/*.tar"))
        assert server.sent < tars / 4  # what lies between the headers is not read
        run(data)
        assert_same(data, output)
        settings = SETTINGS.model_copy(
            update={"data": str(output), "cache": tmp_path / "cache", "shuffle": "global"}
        )
        check_data(settings)
        theirs = pickle.loads(pickle.dumps(open_dataset(settings, WORLD)))  # as another rank
        ours = open_splits(data)
        for local, remote in zip(ours, theirs, strict=True):
            ids = range(len(local))
            remote.expect(ids)
            assert [*map(remote.read, ids)] == [*map(local.read, ids)]
        assert theirs[0].path(0) == f"{server.url}/train/a-000.tar"
        batches = [first_batch(splits, settings) for splits in (ours, theirs)]
        assert all(map(torch.equal, *batches))
        window = open_alone(settings.model_copy(update={"shuffle": "window"}))
        assert [window[0].read(i) for i in (20, 3)] == [ours[0].read(i) for i in (20, 3)]


def test_a_rank_that_sees_no_index_of_urls_is_named(data, tmp_path):
    """It follows rank 0, which sees one."""
    output, told = tmp_path / "index", []
    root = SimpleNamespace(
        **{**vars(WORLD), "broadcast": lambda v: told.append(pickle.dumps(v)) or v}
    )
    with Store(data) as server:
        run(*of(server), "--output", output)
        settings = {"data": str(output), "cache": tmp_path / "cache"}
        open_dataset(SETTINGS.model_copy(update=settings), root)
    for index in output.glob("*.npz"):
        index.unlink()
    other = SimpleNamespace(
        is_root=False,
        local_rank=0,
        broadcast=lambda value: pickle.loads(told.pop(0)),
        gather=lambda value: [value] * 2,
    )
    with pytest.raises(
        BadInput, match=r"train.index.npz cannot be read .*: copy or mount the same"
    ):
        open_dataset(SETTINGS.model_copy(update=settings), other)


def first_batch(splits, settings):
    loader = make_loader(
        "torchvision", Plan(*splits, settings, [range(2)], 0, 1), device=CPU, threads=1
    )
    return next(iter(loader.training(0, 1)))


def test_an_index_of_urls_may_lie_at_a_url_of_its_own(data, tmp_path):
    output = tmp_path / "index"
    with Store(data) as tars, Store(output) as server:
        run(*of(tars), "--output", output)
        settings = SETTINGS.model_copy(update={"data": server.url, "cache": tmp_path / "cache"})
        train, _ = open_alone(settings)
        assert train.read(9) == jpeg(9) + bytes(LARGE)
        with pytest.raises(BadInput, match="is the index of tars at .*: copy its two files to a"):
            stage.main([server.url, str(tmp_path / "copy")])


def test_a_tar_is_looked_into_once(data, tmp_path):
    output = tmp_path / "index"
    with Store(data) as server:
        server.fault = lambda path, number: 403 if path == "/train/a-002.tar" else None
        with pytest.raises(BadInput, match=r"a-002.tar: refused \(403\)"):
            run(*of(server), "--output", output)
        server.fault = lambda path, number: None
        server.seen.clear()
        run(*of(server), "--output", output)
        assert {path for path, _ in server.seen} == {"/train/a-002.tar", "/val/v-0.tar"}
        write(data / "train/a-001.tar", range(40, 42))
        server.seen.clear()
        run(*of(server), "--output", output)
        assert {path for path, _ in server.seen} == {"/train/a-001.tar"}


def test_a_prefix_of_s3_is_listed(data, tmp_path, monkeypatch):
    (data / "train/more%20").mkdir()
    (data / "train/a-001.tar").rename(data / "train/more%20/a-001.tar")
    (data / "train/notes.txt").write_text("no tar")
    with Store(tmp_path) as server:
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        run("s3://bucket/set/", "--output", tmp_path / "index")
        run(data)
        assert_same(data, tmp_path / "index")
        index = load_index(tmp_path / "index/train.index.npz", Path("train"))
        assert index.root == "s3://bucket/set/train"
        with pytest.raises(BadInput, match="no tars at s3://bucket/other/train: check --from"):
            run("s3://bucket/other", "--output", tmp_path / "index")


def test_a_url_may_be_encoded(data, tmp_path):
    """The names in the index are those of the files, and training and staging find them."""
    folder, name = "my set+50%", "é 1%20"
    (data / "train").rename(data / folder)
    (data / folder / "a-000.tar").rename(data / folder / f"{name}.tar")
    url = f"{quote(folder, safe='+')}/{{{quote(name)},a-001}}.tar"
    with Store(data) as server:
        run(f"{server.url}/{url}", of(server)[1], "--output", tmp_path / "index")
        settings = {"data": str(tmp_path / "index"), "cache": tmp_path / "cache"}
        train, _ = open_alone(SETTINGS.model_copy(update=settings))
        assert train.shards == ("a-001.tar", f"{name}.tar")
        assert train.read(8).startswith(jpeg(0))
        stage.main([str(tmp_path / "index"), str(tmp_path / "copy")])
    assert (tmp_path / "copy/train" / f"{name}.tar").is_file()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2100])


def compress(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (cut, r"train/a-001.tar is cut off or no plain tar"),
        (compress, r"train/a-001.tar is cut off .* of a compressed one, images cannot be read"),
        (Path.unlink, r"train/a-001.tar does not exist: check the URL and braces"),
    ],
)
def test_a_tar_that_cannot_be_indexed_is_named(data, tmp_path, harm, line):
    harm(data / "train/a-001.tar")
    with Store(data) as server, pytest.raises(BadInput, match=line) as caught:
        run(*of(server), "--output", tmp_path / "index")
    assert "\n" not in str(caught.value)


def test_a_server_without_ranges_is_named(data, tmp_path):
    with Store(data) as server:
        server.whole = True
        with pytest.raises(BadInput, match="its server answers no range requests: use one"):
            run(*of(server), "--output", tmp_path / "index")


@pytest.mark.parametrize(
    ("urls", "line"),
    [
        (["https://h/x/"], "does not tell training from validation: give a URL for each"),
        (["https://h/x/", "https://h/y/"], "https://h/x/ is no .tar, and a web server does not"),
        (["https://h/{0..1}.tar.gz"] * 2, "https://h/0.tar.gz is compressed"),
        (["https://h/{0..1.tar"] * 2, "has a brace too many: give braces, as https"),
        (["https://h/{01}.tar"] * 2, "has braces without a range or list"),
        (["https://h{1..2}/0.tar"] * 2, "names several hosts or buckets"),
        (["gs://h/0.tar"] * 2, "--from-shards gs://h/0.tar: nothing here reads gs://"),
    ],
)
def test_urls_that_name_no_tars_are_refused(tmp_path, urls, line):
    with pytest.raises(BadInput, match=re.escape(line)):
        run(*urls, "--output", tmp_path)


def test_options_that_do_not_go_together_are_refused(tmp_path):
    url = "https://h/0.tar"
    for options in ([url, url], [tmp_path, "--output", "x"], [tmp_path, tmp_path], [url, tmp_path]):
        with pytest.raises(BadInput, match="--from-shards"):
            run(*options)


def test_what_reads_folders_alone_refuses_an_index_of_urls(data, tmp_path):
    output = tmp_path / "index"
    with Store(data) as server:
        run(*of(server), "--output", output)
    with pytest.raises(BadInput, match="is the index of tars at http.*/train, which training"):
        open_splits(output)
    with pytest.raises(BadInput, match="is the index of tars at http.*: leave out --pack"):
        stage.main([str(output), str(tmp_path / "copy"), "--pack"])


def test_an_index_of_urls_is_staged_with_its_tars(data, tmp_path, capsys):
    """The copy trains alone: its images are those of the URL, in the same order."""
    output, copy = tmp_path / "index", tmp_path / "copy"
    with Store(data) as server:
        run(*of(server), "--output", output)
        stage.main([str(output), str(copy), "--verify"])
        assert "6 of 6 files" in capsys.readouterr().out
        stage.main([str(output), str(copy), "--verify"])  # bytes of the index are the same again
        assert "nothing to copy" in capsys.readouterr().out
    assert_same(copy, output)
    for split in open_splits(copy):
        for number in range(len(split)):
            assert split.read(number).startswith(jpeg(int(split.names[number].decode()[:4])))
    assert sorted(path.name for path in copy.glob("*/*.tar")) == sorted(
        path.name for path in data.glob("*/*.tar")
    )


def test_braces_are_those_of_a_shell():
    assert expand("s3://b/{08..10}-{a,b}.tar") == [
        f"s3://b/{n}-{x}.tar" for n in ("08", "09", "10") for x in "ab"
    ]


def test_a_remote_file_that_is_replaced_is_told(tmp_path):
    """By one of equal length: what follows would be of another object."""
    path = tmp_path / "x"
    path.write_bytes(bytes(2 * LEAST))
    with Store(tmp_path) as server:
        file = RemoteFile(Client(server.url), f"{server.url}/x", 2 * LEAST)
        assert file.read(LEAST)
        os.utime(path, (1, 1))
        with pytest.raises(BadInput, match="/x changed while it was read: start again"):
            file.read(LEAST)


@pytest.mark.parametrize("at_urls", [True, False])
def test_a_tar_that_changes_while_it_is_indexed_is_told(data, tmp_path, monkeypatch, at_urls):
    """By one of equal length, when all but its end was read."""
    tar = data / "val/v-0.tar"
    monkeypatch.setattr(tar_samples, "_require_end", lambda offset, file: os.utime(tar, (1, 1)))
    with Store(data) as server:
        root = server.url if at_urls else str(data)
        path = f"{root}/val/v-0.tar"
        task = tar_samples.TarFile(path, root, tmp_path / "memory.npz", "label", False)
        with pytest.raises(BadInput, match="v-0.tar changed while it was read: start again"):
            tar_samples.index_tar(task)


def test_a_remote_file_reads_as_a_file(tmp_path):
    """Small steps in few requests, which grow; far ones at the cost of what is read there."""
    content = bytes(range(256)) * 4096
    (tmp_path / "x").write_bytes(content)
    with Store(tmp_path) as server:
        file = RemoteFile(Client(server.url), f"{server.url}/x", len(content))
        assert b"".join(iter(lambda: file.read(1000), b"")) == content
        assert server.requests < 12
        for place in (len(content) - 5, 7, 500_000):
            file.seek(place)
            assert (file.read(10), file.tell()) == (
                content[place : place + 10],
                min(place + 10, len(content)),
            )
        file.seek(len(content) + 5)
        assert file.read(1) == b""
