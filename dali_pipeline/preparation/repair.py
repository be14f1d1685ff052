"""Rewrite images that a decoder may refuse as the RGB JPEGs that their names promise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dali_pipeline.preparation.class_folders import link_or_copy
from dali_pipeline.preparation.image_check import CMYK, DEPTH, FORMAT, UNDECODABLE, is_jpeg_name
from dali_pipeline.preparation.verify import Verified

QUALITY = 100  # with chroma at full resolution (4:4:4): as close as a JPEG comes


def repairable(verified: Verified) -> Iterator[int]:
    """Yield the ids of the images that can be mended: another format, or CMYK, under a JPEG name.

    Not those of 16 bits, whose conversion to 8 would be a choice.
    """
    for image in verified.images_with(FORMAT, CMYK, but=(UNDECODABLE, DEPTH)):
        if is_jpeg_name(verified.index.path(image)):
            yield image


def repair(path: Path, original: Path, temporary: Path) -> None:
    """Replace ``path`` by an RGB JPEG of the same size; what it was stays as ``original``.

    ``temporary`` is a file name in the same file system. Pixels are those that PIL's conversion to
    RGB gives, which is what training would see. Raises OSError if a file cannot be written.
    """
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    rgb.save(temporary, "JPEG", quality=QUALITY, subsampling=0)
    original.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(path, original)
    os.replace(temporary, path)
