"""Annotations and pictures that cannot be learned from are named, in one line, before training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detection.coco_format import Coco
from made_up_coco import SIDE
from PIL import Image
from pycocotools import mask
from support.coco import change, change_first_object, listed, write_coco

from hvd_utils.cli.errors import BadInput


def absent(folder):
    (folder / "annotations/instances_val2017.json").unlink()


def without_a_picture(folder):
    (folder / "val2017/000000000002.png").unlink()


def without_annotations(folder):
    change(folder, "val2017", annotations=[])


def no_coco(folder):
    (folder / "annotations/instances_val2017.json").write_text("[]")


def of_no_category(folder):
    change(folder, "val2017", categories=[{"id": 1, "name": "circle"}])


def numbered_from_0(folder):
    change_first_object(folder, id=0)


def twice(folder):
    content = listed(folder)
    change(folder, "val2017", annotations=[*content, content[0]])


def only_crowds(folder):
    change(folder, "val2017", annotations=[one | {"iscrowd": 1} for one in listed(folder)])


def without_size(folder):
    change(folder, "val2017", images=[one | {"width": None} for one in listed(folder, "images")])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (numbered_from_0, "object 0 of .* has the id 0"),
        (twice, "annotations of the same id"),
        (only_crowds, "has no objects but crowds"),
        (without_size, "picture 1 of .* has no height or no width"),
        (absent, "no .*val2017.json: --data takes a folder"),
        (without_a_picture, "1 of 3 pictures .* are not in .*: 000000000002.png"),
        (without_annotations, "has no annotations"),
        (no_coco, "is not in COCO's format"),
        (of_no_category, "is of category [37], which is not one of the 1"),
    ],
)
def test_data_that_cannot_be_is_refused(tmp_path, spoil, told):
    write_coco(tmp_path, train=1)
    spoil(tmp_path)
    with pytest.raises(BadInput, match=told):
        Coco(tmp_path, "val2017")


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    write_coco(tmp_path, train=1)
    (tmp_path / "val2017/000000000001.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="cannot read .*000000000001.png"):
        Coco(tmp_path, "val2017")[0]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"image_id": 99}, "is in picture 99, which is not listed"),
        ({"bbox": [1, 2, 3, None]}, "no bbox of 4 numbers"),
        ({"bbox": 4}, "no bbox of 4 numbers"),
        ({"area": None}, "no area"),
        ({"iscrowd": None}, "no iscrowd"),
        ({"segmentation": []}, "without polygons of 3 corners"),
        ({"segmentation": [[1, 2]]}, "without polygons of 3 corners"),
        ({"segmentation": [[1, 2, 3, 4]]}, "without polygons of 3 corners"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "without polygons of 3 corners"),
        # These crash pycocotools, and with it Python.
        ({"segmentation": [[1, 2, None, 4, 5, 6]]}, "without polygons of 3 corners"),
        ({"segmentation": [[1, 2, 1e9, 4, 5, 6]]}, "without polygons of 3 corners"),
        ({"segmentation": {"counts": [3, 13], "size": [4, 4]}}, "not of its picture's size"),
        ({"segmentation": {"counts": [3, 13], "size": [SIDE, SIDE]}}, "not of its picture's size"),
        ({"segmentation": {"counts": "1"}}, "not of its picture's size"),
    ],
)
def test_a_malformed_object_is_named_before_training(tmp_path, other, told):
    write_coco(tmp_path, train=1)
    change_first_object(tmp_path, **other)
    with pytest.raises(BadInput, match=f"object 1 of .*instances_val2017.json .*{told}"):
        Coco(tmp_path, "val2017")


def test_a_run_length_mask_is_that_of_the_polygons(tmp_path):
    write_coco(tmp_path, train=1)
    before = Coco(tmp_path, "val2017")[0][1]
    flat = before["masks"][0].T.flatten().numpy()  # COCO counts down the columns
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]
    counts = [int(count) for count in np.diff(ends)]
    change_first_object(tmp_path, segmentation={"counts": counts, "size": [SIDE, SIDE]})
    assert torch.equal(Coco(tmp_path, "val2017")[0][1]["masks"], before["masks"])
    larger = mask.encode(np.zeros((2 * SIDE, SIDE), np.uint8, order="F"))["counts"].decode()
    change_first_object(tmp_path, segmentation={"counts": larger, "size": [SIDE, SIDE]})
    with pytest.raises(BadInput, match="object 1 of .* has a mask that cannot be read"):
        Coco(tmp_path, "val2017")[0]


def test_a_picture_of_another_size_than_listed_is_refused(tmp_path):
    """Its masks would be stretched over it, and none of its objects be found in the evaluation."""
    write_coco(tmp_path, train=1)
    Image.new("RGB", (SIDE, SIDE // 2)).save(tmp_path / "val2017/000000000001.png")
    with pytest.raises(BadInput, match="000000000001.png has 128 x 64 pixels, but .* lists 128 x"):
        Coco(tmp_path, "val2017")[0]


def test_boxes_of_whole_numbers_are_floats_too(tmp_path):
    write_coco(tmp_path, train=1)
    whole = [one | {"bbox": [*map(round, one["bbox"])]} for one in listed(tmp_path)]
    change(tmp_path, "val2017", annotations=whole)
    assert Coco(tmp_path, "val2017")[0][1]["boxes"].dtype == torch.float32
