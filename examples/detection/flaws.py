"""What an object in COCO's format lacks, told before training: pycocotools would tell it late.

An odd polygon ends pycocotools 2.0 in an exception, and a coordinate that is no number in a crash.
Without ``area`` or ``iscrowd`` its evaluation ends in an exception. It takes an object whose id is
0 for one that was not found (cocoeval.py, ``dtMatches``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

FARTHEST = 1e6  # pixels; the memory that a polygon takes grows with its length
LEAST_CORNERS = 3


def flaw(
    one: Mapping[str, Any], images: Mapping[int, Mapping[str, Any]], categories: Collection[int]
) -> str | None:
    """Return what is wrong with an object, as the rest of a sentence; None if nothing is."""
    image = images.get(one.get("image_id", ""))
    if image is None:
        return f"is in picture {one.get('image_id')}, which is not listed"
    if one.get("category_id") not in categories:
        return (
            f"is of category {one.get('category_id')}, which is not one of the {len(categories)} "
            "that are listed"
        )
    if one["id"] == 0:
        return "has the id 0, which the evaluation takes for none: count from 1"
    if not _are_numbers(one.get("bbox")) or len(one["bbox"]) != 4:
        return "has no bbox of 4 numbers"
    if not isinstance(one.get("area"), int | float) or one.get("iscrowd") not in (0, 1):
        return "has no area, or no iscrowd of 0 or 1"
    segmentation = one.get("segmentation")
    if isinstance(segmentation, Mapping):
        known = _is_run_length(segmentation, image["height"], image["width"])
        return None if known else "has a run-length mask that is not of its picture's size"
    known = _are_polygons(segmentation)
    return None if known else f"has a segmentation without polygons of {LEAST_CORNERS} corners"


def _are_polygons(given: Any) -> bool:
    """Whether they are lists of x, y, x, y, ...; by the first pycocotools tells what they are."""
    if not isinstance(given, list) or not given:
        return False
    right = all(_are_numbers(one) and len(one) % 2 == 0 for one in given)
    return right and len(given[0]) >= 2 * LEAST_CORNERS


def _is_run_length(given: Mapping[str, Any], height: int, width: int) -> bool:
    counts = given.get("counts")
    if isinstance(counts, list):
        right = all(isinstance(count, int) and count >= 0 for count in counts)
        right = right and sum(counts) == height * width
    else:
        right = isinstance(counts, str)
    return right and given.get("size") == [height, width]


def _are_numbers(given: Any) -> bool:
    return isinstance(given, list) and all(
        isinstance(one, int | float) and abs(one) < FARTHEST for one in given
    )
