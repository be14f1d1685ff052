"""What cannot be read stops the run with its name, or is replaced by one rule."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import write_jpegs

from dali_pipeline import prepare
from dali_pipeline.dataset.bad_images import BadImages
from dali_pipeline.dataset.index import BadImage, Index, bad_image, synthetic_index
from dali_pipeline.dataset.index_file import open_splits
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.paper.logical_workers import passes

LOADERS = ["dali", "torchvision"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def scramble(path):
    """A whole header and end, and no picture between them."""
    data = path.read_bytes()
    path.write_bytes(data[:300] + b"\xff\xd9")


BREAKS = {
    "cut off": truncate,
    "scrambled": scramble,
    "empty": lambda path: path.write_bytes(b""),
    "not an image": lambda path: path.write_bytes(b"<html>404</html>" * 50),
    "vanished": lambda path: path.unlink(),
    "unreadable": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.fixture
def data(tmp_path):
    write_jpegs(tmp_path / "train", {"ant": 8, "bee": 8}, seed=1)
    write_jpegs(tmp_path / "val", {"ant": 3, "bee": 3}, seed=2)
    return tmp_path


def plan_for(data, splits=None, share=range(2), workers=2, batch=4, **changes):
    settings = Settings(
        recipe="demo", workers=workers, batch_per_worker=batch, resolution=32, val_resize=36,
        val_batch=4, **changes,
    )  # fmt: skip
    return Plan(*(splits or scan_splits(data)), settings, passes(share, 1), 0, 1)


def load(kind, plan, steps=2):
    loader = make_loader(kind, plan, device=torch.device("cpu"), threads=1)
    return list(loader.training(0, steps)), list(loader.validation())


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("mistake", BREAKS)
def test_the_run_stops_with_the_name_of_a_bad_image(data, kind, mistake):
    """Also of one that was whole when the folders were indexed."""
    splits = scan_splits(data)
    BREAKS[mistake](data / "train" / "bee" / "003.JPEG")
    with pytest.raises(BadInput, match=r"cannot read image \S*train/bee/003.JPEG: .*skip"):
        load(kind, plan_for(data, splits))


@pytest.mark.parametrize("kind", LOADERS)
def test_bad_images_are_replaced_by_the_next_and_named(data, kind):
    splits = scan_splits(data)
    for number, mistake in enumerate(["cut off", "scrambled", "empty", "vanished"]):
        BREAKS[mistake](data / "train" / "ant" / f"{2 + number:03d}.JPEG")  # ids 2 to 5
    BREAKS["scrambled"](data / "train" / "bee" / "007.JPEG")  # id 15, the last
    BREAKS["not an image"](data / "val" / "bee" / "000.JPEG")
    plan = plan_for(data, splits, on_bad_image="skip")
    training, validation = load(kind, plan, steps=4)  # two epochs of 16 images

    planned = [plan.training_ids(*place)[1] for place in plan.training_places(0, 4)]
    replaced = {2: 6, 3: 6, 4: 6, 5: 6, 15: 0}
    for (_, labels), ids in zip(training, planned, strict=True):
        expected = [splits[0].labels[replaced.get(int(i), int(i))] for i in ids]
        assert labels.tolist() == expected
    assert sum(len(labels) for _, labels in validation) == 5  # one is left out
    found = {where.split("/", -1)[-1]: reason for where, reason in plan.bad_images().named.items()}
    assert plan.bad_images().total == 6
    assert "cut off" in found["002.JPEG"] or "truncated" in found["002.JPEG"]
    assert found["005.JPEG"] == "No such file or directory"

    # The pixels in a bad image's place are those of its substitute in that epoch.
    step, fused = next(p for p in plan.training_places(0, 2) if 3 in plan.training_ids(*p)[1])
    batch = plan.training_batch(step, fused)
    assert 3 not in batch.ids
    assert 6 in batch.ids


@pytest.mark.parametrize("kind", LOADERS)
def test_what_replaces_a_bad_image_does_not_depend_on_who_reads_it(data, kind):
    splits = scan_splits(data)
    for name in ("ant/001.JPEG", "bee/002.JPEG"):
        scramble(data / "train" / name)
    whole, _ = load(kind, plan_for(data, splits, on_bad_image="skip"))
    for worker in range(2):
        share = range(worker, worker + 1)
        part, _ = load(kind, plan_for(data, splits, share=share, on_bad_image="skip"))
        for (images, labels), (expected, expected_labels) in zip(
            part, whole[worker::2], strict=True
        ):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)


def picture(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


# Contents of a file called .JPEG, most of which ended the process in DALI 2.4.
NO_IMAGES = {
    "text": b"<html>404 not found</html>" * 400,
    "text of a bitmap's first letters": b"BM hello " * 100,
    "text of a pixmap's first letters": b"P6 hello " * 100,
    "zeros": bytes(5000),
    "one byte": b"\xff",
    "GIF": picture("GIF"),
    "JPEG's first bytes": b"\xff\xd8\xff\xe0",
    "JPEG with text in it": picture("JPEG")[:2] + b"text" * 1000,
    "JPEG without scans": picture("JPEG")[:300] + b"\xff\xd9",
    "JPEG's header and zeros": picture("JPEG")[:300] + bytes(3000),
    "PNG's signature": b"\x89PNG\r\n\x1a\n" + b"garbage" * 300,
    "cut PNG": picture("PNG")[:200],
    "WebP's signature": b"RIFF\x00\x10\x00\x00WEBPVP8 " + b"garbage" * 300,
    "TIFF's signature": b"II*\x00" + b"garbage" * 300,
    "big TIFF": b"II+\x00\x08\x00\x00\x00" + b"x" * 300,
    "JPEG 2000's signature": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"garbage" * 300,
}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """As many images as DALI parses with several threads at once."""
    root = tmp_path_factory.mktemp("many")
    write_jpegs(root / "train", {"ant": 100, "bee": 100}, seed=1)
    write_jpegs(root / "val", {"ant": 50, "bee": 50}, seed=2)
    return root


def test_no_content_of_a_file_ends_the_process(many, tmp_path):
    """All kinds, at several places of large batches, on several threads."""
    shutil.copytree(many, tmp_path / "data")
    data = tmp_path / "data"
    splits = scan_splits(data)
    for index in splits:
        index.sizes(np.arange(len(index)))  # known from before the files were overwritten
    # At most 10 of a small set may be bad, so the kinds are shared out.
    kinds = list(NO_IMAGES.items())
    found = {}
    for part in (kinds[:8], kinds[8:]):
        for place, (kind, content) in enumerate(part):
            split, name = ("train", "ant"), ("val", "bee")
            for folder, number in ((split, 3 + 12 * place), (name, 2 + 6 * place)):
                path = data.joinpath(*folder, f"{number:03d}.JPEG")
                path.write_bytes(content)
                found[str(path)] = kind
        plan = plan_for(data, splits, batch=64, on_bad_image="skip", loader_threads=3)
        loader = make_loader("dali", plan, device=torch.device("cpu"), threads=3)
        for _ in range(3):
            assert len(list(loader.training(0, 2))) == 4
            assert sum(len(labels) for _, labels in loader.validation()) == 100 - len(part)
        assert plan.bad_images().named.keys() == found.keys()
        assert all(plan.bad_images().named.values())
        for path in found:
            shutil.copy(str(many / path.split("/data/")[1]), path)
        found.clear()


def test_an_image_that_was_replaced_is_named(data):
    """By another one of another size, in a folder and in a prepared one, with both loaders."""
    splits = scan_splits(data)
    for index in splits:
        index.sizes(np.arange(len(index)))
    path = data / "train" / "bee" / "003.JPEG"
    Image.new("RGB", (8, 8)).save(path)
    for kind in LOADERS:
        with pytest.raises(BadInput, match=r"train/bee/003.JPEG: it has changed since its index"):
            load(kind, plan_for(data, splits))
        plan = plan_for(data, splits, on_bad_image="skip")
        load(kind, plan)
        assert list(plan.bad_images().named) == [str(path)]


def test_a_file_of_another_length_than_the_prepared_index_knows_is_named(data):
    prepare.main([str(data), "--processes", "1"])
    splits = open_splits(data)
    path = data / "train" / "bee" / "003.JPEG"
    path.write_bytes(path.read_bytes() + b"more")
    for kind in LOADERS:
        with pytest.raises(BadInput, match=r"train/bee/003.JPEG: it has changed since its index"):
            load(kind, plan_for(data, splits))


def test_dali_goes_on_after_a_validation_image_that_it_cannot_decode(data):
    splits = scan_splits(data)
    scramble(data / "val" / "ant" / "001.JPEG")
    plan = plan_for(data, splits, on_bad_image="skip")
    loader = make_loader("dali", plan, device=torch.device("cpu"), threads=1)
    for _ in range(3):
        assert sum(len(labels) for _, labels in loader.validation()) == 5


def test_storage_that_is_gone_is_not_taken_for_bad_images(data):
    splits = scan_splits(data)
    shutil.rmtree(data / "train")
    with pytest.raises(BadInput, match="11 of 16 images .* cannot be read.*check the storage"):
        load("dali", plan_for(data, splits, on_bad_image="skip"))


def test_substitutes_are_the_next_good_images_around_the_end():
    index = synthetic_index(10, 2)
    bad = BadImages(index, skip=True)
    ids = np.arange(10)
    assert bad.substitutes(ids) is ids
    for image in (3, 4, 9):
        bad.add(bad_image(index, image, "broken"))
    assert bad.substitutes(ids).tolist() == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]
    assert bad.without(ids).tolist() == [0, 1, 2, 5, 6, 7, 8]
    with pytest.raises(BadImage, match="broken"):
        BadImages(index, skip=False).add(bad_image(index, 1, "broken"))


@pytest.mark.parametrize("processes", [1, 3, 16, 256])
@pytest.mark.parametrize(("bad", "stops"), [(13, True), (12, False)])
def test_too_many_bad_images_stop_a_run_on_any_number_of_processes(processes, bad, stops):
    """1 % of 1,281 images is 12, whoever found them; a process alone may have found one."""
    names = np.array([f"ant/{number}.jpg" for number in range(1281)], dtype=bytes)
    index = Index("/data", ("ant",), names, np.zeros(len(names), np.int32))
    found = [dict.fromkeys(range(bad)[rank::processes], "broken") for rank in range(processes)]
    found.append(found[0])  # a later epoch gives the same image to another process
    verdict = BadImages(index, skip=True)
    if stops:
        with pytest.raises(BadInput, match="13 of 1281 images .*check the storage"):
            verdict.everywhere(found)
    else:
        assert verdict.everywhere(found).total == bad


def test_thousands_of_unreadable_headers_end_in_one_line(tmp_path):
    """Of 200,000 images 2,000 may be bad: more than Python nests calls."""
    names = np.array([f"ant/{number}.jpg" for number in range(200_000)], dtype=bytes)
    index = Index(str(tmp_path), ("ant",), names, np.zeros(len(names), np.int32))
    plan = plan_for(None, (index, index), batch=1500, on_bad_image="skip")
    with pytest.raises(BadInput, match="2001 of 200000 images .* check the storage"):
        plan.training_batch(0, range(2))
    with pytest.raises(BadInput, match="2001 of 200000 images .* check the storage"):
        plan.validation_batch(np.arange(3000))


def test_of_very_many_bad_images_the_first_are_named_and_all_counted(monkeypatch):
    """The list stays bounded; what is replaced by what does not depend on it."""
    names = np.arange(2_000_000).astype(bytes)
    index = Index("/data", ("ant",), names, np.zeros(len(names), np.int32))
    bad = BadImages(index, skip=True)
    for image in range(20_000):  # 1 % is as many
        bad.add(bad_image(index, image, "broken"))
    found = bad.everywhere([bad.reasons])
    assert (found.total, len(found.named)) == (20_000, 10_000)
    both = found + bad.everywhere([{5: "broken"}])
    assert (both.total, len(both.named)) == (20_001, 10_000)
    assert bad.substitutes(np.array([19_999, 30_000])).tolist() == [20_000, 30_000]
    monkeypatch.setattr("dali_pipeline.dataset.bad_images.MOST_OF_ALL", 20_000)
    with pytest.raises(BadInput, match="20001 of 2000000 images .* check the storage"):
        bad.add(bad_image(index, 20_000, "broken"))
