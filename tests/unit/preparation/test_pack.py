"""Shards give back every image byte for byte, to us and to any other reader of tar."""

import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import wds2idx
from nvidia.dali import fn, pipeline_def
from PIL import Image
from support.images import write_jpegs

from dali_pipeline import prepare
from dali_pipeline.dataset import index_file
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.open_data import describe
from dali_pipeline.preparation import shard
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings


@pytest.fixture
def data(tmp_path) -> Path:
    root = tmp_path / "data"
    write_jpegs(root / "train", {"ant": 8, "bee": 12, "cat": 10}, seed=1)
    write_jpegs(root / "val", {"ant": 2, "bee": 3, "cat": 2}, seed=2)
    return root


def run(*arguments: object) -> None:
    prepare.main([*map(str, arguments), "--processes", "1"])


def tars(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.glob("*/*.tar")}


@pytest.mark.parametrize("shard_bytes", [10**9, 5000, 1])
def test_packed_images_are_the_same_bytes_in_the_same_order(data, tmp_path, shard_bytes):
    run(data, "--pack", tmp_path / "packed", "--shard-bytes", shard_bytes)
    for packed, loose in zip(open_splits(tmp_path / "packed"), open_splits(data), strict=True):
        ids = np.random.default_rng(0).permutation(len(loose))
        assert [packed.read(image) for image in ids] == [loose.read(image) for image in ids]
        assert packed.classes == loose.classes
        for column in ("names", "labels", "heights", "widths", "file_bytes"):
            assert np.array_equal(getattr(packed, column), getattr(loose, column))
        assert packed.note == ""
        few = {10**9: 1, 1: len(loose)}
        assert len(packed.shards) == few.get(shard_bytes, len(packed.shards))


def test_the_index_says_where_tar_says_the_image_is(data, tmp_path):
    run(data, "--pack", tmp_path / "packed", "--shard-bytes", 5000)
    train, _ = open_splits(tmp_path / "packed")
    assert len(train.shards) > 2
    for image in range(len(train)):
        with tarfile.open(train.path(image)) as tar:
            member = tar.getmember(train.names[image].decode().replace(".JPEG", ".jpg"))
            label = tar.extractfile(member.name.replace(".jpg", ".cls")).read()
        assert (member.offset_data, member.size) == (train.offset[image], train.file_bytes[image])
        assert int(label) == train.labels[image]


def test_tar_itself_unpacks_a_shard(data, tmp_path):
    run(data, "--pack", tmp_path / "packed")
    subprocess.run(["tar", "xf", tmp_path / "packed/val/000000.tar"], cwd=tmp_path, check=True)
    assert (tmp_path / "bee/002.jpg").read_bytes() == (data / "val/bee/002.JPEG").read_bytes()
    assert (tmp_path / "bee/002.cls").read_text() == "1"


def test_dali_reads_the_shards(data, tmp_path):
    run(data, "--pack", tmp_path / "packed", "--shard-bytes", 5000)
    train, _ = open_splits(tmp_path / "packed")
    paths = sorted({train.path(image) for image in range(len(train))})
    for path in paths:  # as DALI's own tool writes it
        with wds2idx.IndexCreator(path, tmp_path / "its.idx", verbose=False) as creator:
            creator.create_index()
        assert Path(path).with_suffix(".idx").read_bytes() == (tmp_path / "its.idx").read_bytes()

    @pipeline_def(batch_size=len(train), num_threads=1, device_id=None)
    def graph():
        images, labels = fn.readers.webdataset(
            paths=paths,
            index_paths=[path.replace(".tar", ".idx") for path in paths],
            ext=["jpg", "cls"],
            missing_component_behavior="error",
        )
        return images, labels

    pipeline = graph()
    pipeline.build()
    images, labels = pipeline.run()
    for image in range(len(train)):
        assert np.array(images.at(image)).tobytes() == train.read(image)
        assert np.array(labels.at(image)).tobytes() == str(train.labels[image]).encode()


def test_webdataset_reads_the_shards(data, tmp_path):
    wds = pytest.importorskip("webdataset")
    run(data, "--pack", tmp_path / "packed", "--shard-bytes", 5000)
    train, _ = open_splits(tmp_path / "packed")
    paths = sorted({train.path(image) for image in range(len(train))})
    samples = [*wds.WebDataset(paths, shardshuffle=False)]
    assert [sample["jpg"] for sample in samples] == [train.read(i) for i in range(len(train))]
    assert [int(sample["cls"]) for sample in samples] == train.labels.tolist()


def test_16_bits_are_scaled_where_images_are_encoded_anew(data, tmp_path):
    ramp = np.linspace(0, 2**16 - 1, 400).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (30, 1))).save(data / "val/ant/deep.png")
    run(data, "--pack", tmp_path / "packed", "--max-side", 300)
    _, val = open_splits(tmp_path / "packed")
    (place,) = np.flatnonzero(val.names == b"ant/deep.png")
    with Image.open(io.BytesIO(val.read(int(place)))) as image:
        assert np.asarray(image).mean() == pytest.approx(127.5, abs=2)


def test_a_shards_index_for_dali_is_written_again_where_it_is_gone(data, tmp_path):
    """As in a set that was packed before there were any; the tar stays. Blanks are no ends."""
    (data / "val/ant/001.JPEG").rename(data / "val/ant/a b.JPEG")
    packed = tmp_path / "packed"
    run(data, "--pack", packed)
    before, idx = tars(packed), packed / "val" / "000000.idx"
    content = idx.read_bytes()
    assert b" ant/a_b.jpg cls " in content
    idx.unlink()
    run(data, "--pack", packed)
    assert tars(packed) == before
    assert idx.read_bytes() == content


def test_packing_twice_changes_nothing_and_changed_images_are_packed_again(data, tmp_path):
    packed = tmp_path / "packed"
    run(data, "--pack", packed, "--shard-bytes", 5000)
    before = tars(packed)
    run(data, "--pack", packed, "--shard-bytes", 5000)
    assert tars(packed) == before
    changed = data / "train" / "cat" / "009.JPEG"
    Image.open(data / "train" / "ant" / "000.JPEG").save(changed, quality=50)
    run(data, "--pack", packed, "--shard-bytes", 5000)
    train, _ = open_splits(packed)
    assert train.read(29) == changed.read_bytes()
    now = tars(packed)
    assert {name for name in before if now[name] != before[name]} == {f"train/{train.shards[-1]}"}
    run(data, "--pack", packed)  # cut otherwise: the other shards go
    assert sorted(tars(packed)) == ["train/000000.tar", "val/000000.tar"]
    assert [path.name for path in (packed / "train").glob("*.idx")] == ["000000.idx"]


def test_an_interrupted_packing_goes_on(data, tmp_path, monkeypatch):
    packed, add, added = tmp_path / "packed", shard._add, []

    def interrupted(tar, name, content):
        if len(added) == 30:
            raise KeyboardInterrupt
        added.append(name)
        return add(tar, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(shard, "_add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(data, "--pack", packed, "--shard-bytes", 5000)
    done = tars(packed)
    assert done
    assert not list(packed.glob("*.npz"))
    run(data, "--pack", packed, "--shard-bytes", 5000)
    now = tars(packed)
    assert {name: now[name] for name in done} == done
    assert not list(packed.glob("*/.*.tmp"))
    train, _ = open_splits(packed)
    assert train.read(29) == (data / "train/cat/009.JPEG").read_bytes()


def test_larger_images_are_reduced_where_asked(data, tmp_path):
    run(data, "--pack", tmp_path / "packed", "--max-side", 60, "--quality", 80)
    train, _ = open_splits(tmp_path / "packed")
    loose, _ = open_splits(data)
    expected = "longer sides reduced to 60 pixels, JPEG quality 80 (a departure from the paper)"
    assert train.note == expected
    settings = load_settings(["--data", str(tmp_path / "packed")], {})
    line = describe(settings, train, train)
    assert line.startswith(f"data: {tmp_path}/packed (prepared index): 30 training and 30 ")
    assert line.endswith(f"; training images: {expected}; validation images: {expected}")
    reduced = np.maximum(loose.heights, loose.widths) > 60
    assert 0 < reduced.sum() < len(loose)
    for image in range(len(loose)):
        (tmp_path / "one.jpg").write_bytes(train.read(image))
        with Image.open(tmp_path / "one.jpg") as now:
            assert now.size == (train.widths[image], train.heights[image])
            assert max(now.size) <= 60
        if reduced[image]:
            assert max(now.size) == 60
            ratio = loose.heights[image] / loose.widths[image]
            assert now.height == pytest.approx(now.width * ratio, abs=1 + ratio)
        else:
            assert train.read(image) == loose.read(image)
    run(data, "--pack", tmp_path / "packed")
    assert open_splits(tmp_path / "packed")[0].read(0) == loose.read(0)


def test_names_with_dots_and_names_that_would_meet(data, tmp_path):
    folder = data / "val" / "ant"
    (folder / "000.JPEG").rename(folder / "0.0.0.jpeg")
    run(data, "--pack", tmp_path / "packed")
    with tarfile.open(tmp_path / "packed" / "val" / "000000.tar") as tar:
        assert tar.getnames()[:2] == ["ant/0_0_0.jpg", "ant/0_0_0.cls"]
    Image.open(folder / "001.JPEG").save(folder / "001.png")
    with pytest.raises(BadInput, match="two images of .*val would be packed as ant/001: rename"):
        run(data, "--pack", tmp_path / "packed")


def test_class_folders_and_shards_do_not_mingle(data, tmp_path):
    for folder in (data, data / "." / "train" / ".."):
        with pytest.raises(BadInput, match="has class folders: give --pack a folder of its own"):
            run(data, "--pack", folder)


def test_shards_that_do_not_fit_the_index_are_noticed(data, tmp_path):
    packed = tmp_path / "packed"
    run(data, "--pack", packed, "--shard-bytes", 5000)
    train, _ = open_splits(packed)
    last = packed / "train" / train.shards[-1]
    whole = last.read_bytes()
    cut = int(train.offset[-1]) + 10
    last.write_bytes(whole[:cut])
    with pytest.raises(BadInput, match=f"{last.name} has changed since its index was made"):
        open_splits(packed)
    with pytest.raises(BadInput, match=f"{last.name}: cat/009.JPEG: its shard ends too early"):
        train.read(len(train) - 1)
    last.unlink()
    with pytest.raises(BadInput, match=f"{last.name} is missing since its index was made"):
        open_splits(packed)
    index_file.index_path(packed, "train").unlink()
    with pytest.raises(BadInput, match="no index .*train.index.npz: prepare the data again"):
        open_splits(packed)


@pytest.mark.parametrize(
    "options", [["--quality", "80"], ["--max-side", "9"], ["--pack", "x", "--shard-bytes", "0"]]
)
def test_options_that_make_no_sense_are_refused(data, options):
    with pytest.raises(BadInput, match=options[-2]):
        run(data, *options)
