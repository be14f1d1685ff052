"""What cannot be read stops the run with its name, or is replaced by one rule."""

import shutil

import numpy as np
import pytest
import torch
from helpers import write_jpegs

from dali_pipeline.bad_images import BadImages
from dali_pipeline.index import BadImage, bad_image, scan_splits, synthetic_index
from dali_pipeline.loader import make_loader
from dali_pipeline.plan import Plan
from hvd_utils.failure import BadInput
from hvd_utils.settings import Settings
from hvd_utils.workers import passes

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
    found = {where.split("/", -1)[-1]: reason for where, reason in plan.bad_images().items()}
    assert len(plan.bad_images()) == 6
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
