"""Check one image file: its size, and its faults and oddities."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from typing import NamedTuple

from PIL import ExifTags, Image

# What can be found, and its text in the report.
UNDECODABLE = "undecodable"  # truncated, empty, unreadable or no image
FORMAT = "format"  # not a JPEG, under a JPEG's name
CMYK = "cmyk"
DEPTH = "depth"  # 16 bits
ORIENTATION = "orientation"  # EXIF requests a rotation, which training ignores as torchvision does
GRAYSCALE = "grayscale"  # quite usual: counted, not listed
KINDS = (UNDECODABLE, FORMAT, CMYK, DEPTH, ORIENTATION, GRAYSCALE)

JPEG_NAMES = frozenset({".jpg", ".jpeg"})
NO_TIME = -1


class ImageCheck(NamedTuple):
    """One file: its length and time of change, size in pixels (0 if unknown), and findings."""

    file_bytes: int
    mtime_ns: int
    height: int
    width: int
    findings: dict[str, str]  # from kind to detail


def check_image(path: str) -> ImageCheck:
    """Decode an image file and return what is in it. Raises OSError where a look at it fails."""
    stat = os.stat(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:  # perhaps temporary: without a time it is checked again
        return ImageCheck(stat.st_size, NO_TIME, 0, 0, {UNDECODABLE: error.strerror})
    height = width = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF and of large images
            with Image.open(BytesIO(data)) as image:
                width, height = image.size
                image.load()
                findings = _oddities(image, path)
    except MemoryError:
        raise
    except Exception as error:  # decoders fail on broken files in every way there is
        reason = str(error) if data else "the file is empty"
        findings = {UNDECODABLE: reason or repr(error)}
    return ImageCheck(stat.st_size, stat.st_mtime_ns, height, width, findings)


def _oddities(image: Image.Image, path: str) -> dict[str, str]:
    found = {}
    if is_jpeg_name(path) and image.format not in ("JPEG", "MPO"):  # MPO: JPEGs of some cameras
        found[FORMAT] = f"{image.format} under a JPEG's name"
    if image.mode == "CMYK":
        found[CMYK] = "YCCK" if image.info.get("adobe_transform") == 2 else "CMYK"
    if image.mode.startswith(("I", "F")):
        found[DEPTH] = f"more than 8 bits a channel ({image.mode})"
    if image.mode in ("1", "L", "LA"):
        found[GRAYSCALE] = "one channel"
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF is quite usual, and nothing here needs it
        orientation = 1
    if orientation != 1:
        found[ORIENTATION] = f"EXIF orientation {orientation}, ignored in training"
    return found


def is_jpeg_name(path: str) -> bool:
    """Return whether a file is called a JPEG."""
    return os.path.splitext(path)[1].lower() in JPEG_NAMES
