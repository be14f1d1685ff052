"""Files that only look like images, and images of odd forms."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import write_jpegs
from support.launching import TINY
from support.odd_inputs import Ended, assert_ends, call

import train_imagenet

FIRST = "train/ant/000.JPEG"


def train(data: Path, *options: object) -> Ended:
    run = ("--data", data, "--output", "run", "--max-steps", 8, "--epochs", 1)
    return call(train_imagenet.main, *TINY, *run, *options)


def encoded(form: str, width: int = 40, height: int = 30, mode: str = "RGB", **how) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, form, **how)
    return buffer.getvalue()


JPEG, PNG = encoded("JPEG"), encoded("PNG")
PROGRESSIVE = encoded("JPEG", 200, 200, progressive=True)

# What lies in the first image's file, and what the line says of it beside its name.
NO_IMAGES = {
    "empty": (b"", ""),
    "text": (b"not a picture", "not an image"),
    "a page": (b"<!doctype html><html><body>404</body></html>", "not an image"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>', "not an image"),
    "a pointer of git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "not an image"),
    "zeros": (bytes(5000), "not an image"),
    "one byte": (b"\xff", "not an image"),
    "PDF": (encoded("PDF"), "not an image"),
    "what macOS leaves": (bytes.fromhex("0005160700020000") + bytes(74), "not an image"),
    "GIF": (encoded("GIF"), "DALI does not decode it"),
    "ICO": (encoded("ICO"), "DALI does not decode it"),
    "cut off JPEG": (JPEG[:700], "cut"),
    "cut off progressive JPEG": (PROGRESSIVE[: len(PROGRESSIVE) // 2], "cut"),
    "the head of a JPEG": (JPEG[:20], ""),
    "a JPEG's end alone": (JPEG[-20:], "not an image"),
    "cut off PNG": (PNG[: len(PNG) // 2], ""),
    "PNG of no pixels": (PNG[:16] + bytes(8) + PNG[24:], ""),
    "PNG of 4 billion pixels": (PNG[:16] + b"\0\0\xff\xff" * 2 + PNG[24:], ""),
    "PNG with a wrong checksum": (PNG[:60] + b"\0\0\0\0" + PNG[64:], ""),
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_files_that_are_no_images(data, what):
    content, reason = NO_IMAGES[what]
    (data / FIRST).write_bytes(content)
    named = ("cannot read image", str(data / FIRST), reason, "--on-bad-image skip")
    assert_ends(train(data), 2, *named)
    assert not Path("run/checkpoints").exists()
    assert_ends(train(data, "--on-bad-image", "skip"), 0, FIRST, "bad images passed over so far: 1")


@pytest.mark.parametrize("what", ["empty", "text", "cut off JPEG", "PNG of no pixels"])
def test_the_reference_loader_names_them_too(data, what):
    (data / FIRST).write_bytes(NO_IMAGES[what][0])
    torchvision = ("--loader", "torchvision")
    assert_ends(train(data, *torchvision), 2, "cannot read image", str(data / FIRST))
    assert_ends(train(data, *torchvision, "--on-bad-image", "skip"), 0, FIRST, "passed over")


@pytest.mark.parametrize("name", ["._000.JPEG", "link.JPEG", "loop.JPEG"])
def test_names_of_images_that_are_none(data, name):
    """A folder copied by macOS has the first; a link may point to a disk that is not mounted."""
    path = data / "train/ant" / name
    if name.startswith("."):
        path.write_bytes(NO_IMAGES["what macOS leaves"][0])
    else:
        path.symlink_to("/not/mounted.JPEG" if name == "link.JPEG" else name)
    assert_ends(train(data), 2, "cannot read", str(path))


FORMS = {
    "one pixel": encoded("JPEG", 1, 1),
    "one pixel wide": encoded("JPEG", 1, 3000),
    "one pixel high": encoded("JPEG", 3000, 1),
    "PNG": PNG,
    "PNG of 16 bits": encoded("PNG", mode="I;16"),
    "PNG with a palette": encoded("PNG", mode="P"),
    "PNG with transparency": encoded("PNG", mode="RGBA"),
    "WebP": encoded("WebP"),
    "BMP": encoded("BMP"),
    "TIFF": encoded("TIFF"),
    "PPM": encoded("PPM"),
    "CMYK": encoded("JPEG", mode="CMYK"),
    "grey": encoded("JPEG", mode="L"),
    "black and white": encoded("PNG", mode="1"),
    "progressive": PROGRESSIVE,
    "junk after its end": JPEG + b"junk" * 99,
}


@pytest.mark.parametrize("what", FORMS)
def test_forms_that_are_fine_under_a_jpegs_name(data, what):
    (data / FIRST).write_bytes(FORMS[what])
    assert_ends(train(data), 0, "trained to step 8")


@pytest.mark.parametrize(
    ("split", "named"), [("train", "no image in"), ("val", "no validation image can be read")]
)
@pytest.mark.parametrize("loader", ["dali", "torchvision"])
def test_nothing_but_bad_images(here, split, named, loader):
    write_jpegs(here / "few/train", {"ant": 4, "bee": 4})
    write_jpegs(here / "few/val", {"ant": 2, "bee": 2})
    for path in (here / "few" / split).glob("*/*"):
        path.write_bytes(b"")
    options = ("--on-bad-image", "skip", "--loader", loader)
    assert_ends(train(here / "few", *options), 2, named, "check the storage")


def test_more_bad_images_than_can_be(data):
    for path in (data / "train").glob("bee/*"):
        path.write_bytes(b"")
    ended = train(data, "--on-bad-image", "skip")
    assert_ends(ended, 2, "11 of 30 images", "cannot be read", "check the storage")


def test_validation_images_that_are_bad_are_left_out(data, run):
    first = data / "val/ant/000.JPEG"
    first.write_bytes(b"none")
    evaluated = ("--eval-only", run / "checkpoints" / "best.pt")
    assert_ends(train(data, *evaluated), 2, "cannot read image", str(first))
    ended = train(data, *evaluated, "--on-bad-image", "skip")
    assert_ends(ended, 0, "6 images", f"left out as bad: {first}")
