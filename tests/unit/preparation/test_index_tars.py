"""Tars of WebDataset's form are indexed and read where they are."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.preparing import add, jpeg

from dali_pipeline import prepare
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.preparation.tars import index_tars, tar_samples
from hvd_utils.cli.errors import BadInput


def write(path: Path, files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in files.items():
            add(tar, name, data)


def samples(first: int, labels: list, ending: str = "cls") -> dict[str, bytes]:
    """Return the files of samples, with what else such tars have beside image and label."""
    files = {"__meta__": b"of the shard", "notes": b"without an extension"}
    for number, label in enumerate(labels, start=first):
        key = f"part/{number:06d}"
        files[f"{key}.jpg"] = jpeg(number)
        files[f"{key}.seg.png"] = b"a mask, which is not the image"
        files[f"{key}.txt"] = b"a caption. With dots."
        content = str(label) if ending == "cls" else json.dumps({"label": label, "url": "x"})
        files[f"{key}.{ending}"] = content.encode()
    return files


@pytest.fixture
def data(tmp_path) -> Path:
    write(tmp_path / "train" / "a-000.tar", samples(0, [10, 2, 2]))
    write(tmp_path / "train" / "a-001.tar", samples(3, ["7\n", "002"]), tarfile.PAX_FORMAT)
    write(tmp_path / "val" / "v.tar", samples(50, [2, 10], ending="json"))
    return tmp_path


def run(data: Path, *options: object) -> None:
    prepare.main(["--from-shards", str(data), "--processes", "1", *map(str, options)])


def test_images_are_read_where_tar_has_them(data):
    before = {path: path.read_bytes() for path in data.glob("*/*.tar")}
    run(data)
    train, val = open_splits(data)
    assert {path: path.read_bytes() for path in data.glob("*/*.tar")} == before
    assert [train.read(image) for image in range(5)] == [jpeg(number) for number in range(5)]
    assert [val.read(image) for image in range(2)] == [jpeg(50), jpeg(51)]
    # By number, not by text; a gap is no class. Validation has some of training's.
    assert (train.classes, train.labels.tolist()) == (("2", "7", "10"), [2, 0, 0, 1, 0])
    assert (val.classes, val.labels.tolist()) == (("2", "10"), [0, 1])
    heights, widths = train.sizes(np.arange(5))
    assert (heights.tolist(), widths.tolist()) == ([30] * 5, [40, 41, 42, 43, 44])
    assert train.whereabouts(3) == f"{data}/train/a-001.tar: part/000003.jpg"


def test_classes_can_be_named(data):
    (data / "classes.txt").write_text("\n".join(f"name {number}" for number in range(11)))
    run(data)
    assert open_splits(data)[0].classes == ("name 2", "name 7", "name 10")
    (data / "classes.txt").write_bytes(b"\n".join(b"caf\xe9 %d" % n for n in range(11)))  # Latin-1
    run(data)
    assert os.fsencode(open_splits(data)[0].classes[2]) == b"caf\xe9 10"
    (data / "classes.txt").write_text("one\ntwo")
    with pytest.raises(BadInput, match=r"classes.txt has 2 lines: .* each of the classes 0 to 10"):
        run(data)


def test_labels_may_be_names_under_any_key(tmp_path):
    for split, names in (("train", ["dog", "ant", "7"]), ("val", ["ant"])):
        files = {}
        for number, name in enumerate(names):
            files |= {f"{number}.PNG": jpeg(number), f"{number}.json": json.dumps({"kind": name})}
        write(tmp_path / split / "0.tar", {n: v if isinstance(v, bytes) else v.encode()
                                           for n, v in files.items()})  # fmt: skip
    run(tmp_path, "--label-key", "kind")
    train, val = open_splits(tmp_path)
    assert (train.classes, train.labels.tolist()) == (("7", "ant", "dog"), [2, 1, 0])
    assert val.classes == ("ant",)
    with pytest.raises(BadInput, match="0.tar: sample 0 has no label: .* .json as label"):
        run(tmp_path)


def test_a_tar_is_looked_into_once(data, monkeypatch):
    run(data)
    first = (data / "train.index.npz").read_bytes()
    looked = []
    samples_of = tar_samples._samples
    monkeypatch.setattr(
        tar_samples,
        "_samples",
        lambda tar, of: looked.append(Path(of.path).name) or samples_of(tar, of),
    )
    run(data)
    assert looked == []
    write(data / "train" / "a-001.tar", samples(3, [2]))
    run(data)
    assert looked == ["a-001.tar"]
    assert len(open_splits(data)[0]) == 4
    assert (data / "train.index.npz").read_bytes() != first


def test_an_index_that_is_interrupted_leaves_the_one_before(data, monkeypatch):
    run(data)
    before = (data / "train.index.npz").read_bytes()

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_tars, "write_index", stop)
    with pytest.raises(KeyboardInterrupt):
        run(data)
    assert (data / "train.index.npz").read_bytes() == before


def cut_behind_the_last(path: Path) -> None:
    with tarfile.open(path) as tar:
        *_, last = tar
    size = -(-last.size // 512) * 512
    path.write_bytes(path.read_bytes()[: last.offset_data + size])


def twice(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            add(tar, "part/000000.jpg", jpeg(0))


def link_within(path: Path) -> None:
    with tarfile.open(path, "a") as tar:
        for name in ("notes.md", "7.cls", "7.jpg"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, "part/000000.jpg"
            tar.addfile(member)


SHARD = "train/a-000.tar"
WRONG = {
    "cut off in an image": (lambda path: path.write_bytes(path.read_bytes()[:2100]), "cut off"),
    "cut off in a header": (lambda path: path.write_bytes(path.read_bytes()[:1300]), "cut off"),
    "cut off between files": (lambda path: cut_behind_the_last(path), "cut off"),
    "a name twice": (lambda path: twice(path), "has part/000000.jpg twice"),
    "links": (lambda path: link_within(path), "7.cls is a link.* --hard-dereference"),
    "no tar": (lambda path: path.write_bytes(b"not a tar" * 100), "no plain tar"),
    "no label": (lambda path: write(path, {"1.jpg": jpeg(1)}), "sample 1 has no label"),
    "empty label": (lambda path: write(path, samples(0, [" "])), "has no label"),
    "label of a list": (lambda path: write(path, samples(0, [[1]], "json")), "has no label"),
    "json of no object": (lambda path: write(path, {"1.jpg": jpeg(1), "1.json": b"{"}), "no label"),
    "two images": (
        lambda path: write(path, {"1.jpg": jpeg(1), "1.png": jpeg(1), "1.cls": b"1"}),
        "sample 1 has two images, .jpg and .png",
    ),
    "no image's bytes": (lambda path: write(path, {"1.jpg": b"x", "1.cls": b"1"}), "--drop-bad"),
    "no images": (lambda path: path.write_bytes(bytes(10240)), "label 10 is in .*val but not in"),
    "Parquet": (
        lambda path: [p.rename(f"{p}.parquet") for p in path.parent.glob("*.tar")],
        "TarWriter",
    ),
    "no tars": (lambda path: [p.unlink() for p in path.parent.glob("*.tar")], "no tars in .*train"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_indexed_is_named(data, what):
    harm, said = WRONG[what]
    harm(data / SHARD)
    with pytest.raises(BadInput, match=said):
        run(data)
    assert not (data / "train.index.npz").exists()


def test_tars_are_found_behind_links(data, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (data / "train" / "a-001.tar").rename(elsewhere.with_suffix(".tar"))
    elsewhere.mkdir()
    elsewhere.with_suffix(".tar").rename(elsewhere / "b.tar")
    (data / "train" / "more").symlink_to(elsewhere)
    run(data)
    assert open_splits(data)[0].shards == ("a-000.tar", "more/b.tar")
    (elsewhere / "c.tar").symlink_to("nowhere")
    with pytest.raises(BadInput, match="c.tar"):
        run(data)


def test_unreadable_images_are_left_out_on_request(data, capsys):
    write(data / SHARD, samples(0, [10, 2]) | {"9.jpg": b"x", "9.cls": b"2", "8.txt": b"no image"})
    run(data, "--drop-bad")
    assert "train: 4 images in 2 tars, 3 classes; 2 samples without" in capsys.readouterr().out
    assert len(open_splits(data)[0]) == 4


def test_options_that_do_not_go_together_are_refused(data):
    for options in (
        [],
        [str(data), "--from-shards", str(data)],
        ["--from-shards", "x", "--repair"],
    ):
        with pytest.raises(BadInput, match="--from-shards"):
            prepare.main(options)
