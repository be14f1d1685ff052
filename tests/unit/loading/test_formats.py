"""Every form that an image file takes decodes like PIL, in both loaders."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dali_pipeline.dataset.scan import scan
from dali_pipeline.loading.dali.reader import is_cut_off
from dali_pipeline.loading.interface import MEAN, STD
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.config.settings import Settings

ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # orientation: turn by 90°, which torchvision's ImageFolder does not do


def picture(height=60, width=80):
    coarse = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def sixteen_bits():
    return Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)


def ycck():
    """A CMYK JPEG whose Adobe marker says that its colours are stored as YCCK."""
    data = encoded(picture().convert("CMYK"), "JPEG")
    at = data.index(b"Adobe") + len(b"Adobe") + 6  # version, two flags, then the transform
    return data[:at] + b"\x02" + data[at + 1 :]


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


FORMS = {
    "baseline": lambda: encoded(picture(), "JPEG", quality=92),
    "full colour": lambda: encoded(picture(), "JPEG", quality=92, subsampling=0),
    "progressive": lambda: encoded(picture(), "JPEG", progressive=True),
    "grayscale": lambda: encoded(picture().convert("L"), "JPEG"),
    "CMYK": lambda: encoded(picture().convert("CMYK"), "JPEG"),
    "YCCK": ycck,
    "EXIF orientation": lambda: encoded(picture(), "JPEG", exif=ROTATED),
    "bytes after the end": lambda: encoded(picture(), "JPEG") + b"\n" * 100,
    "one pixel": lambda: encoded(picture(1, 1), "JPEG"),
    "one row": lambda: encoded(picture(1, 80), "JPEG"),
    "very large": lambda: encoded(picture(4000, 3000), "JPEG"),
    "PNG": lambda: encoded(picture(), "PNG"),
    "grayscale PNG": lambda: encoded(picture().convert("L"), "PNG"),
    "PNG with a palette": lambda: encoded(picture().convert("P"), "PNG"),
    "PNG with alpha": lambda: encoded(picture().convert("RGBA"), "PNG"),
    "black and white PNG": lambda: encoded(picture().convert("1"), "PNG"),
    "16-bit PNG": lambda: encoded(sixteen_bits(), "PNG"),
    "WebP": lambda: encoded(picture(), "WEBP"),
}


def settings(**changes):
    return Settings(
        recipe="demo", workers=1, batch_per_worker=1, resolution=32, val_resize=36, **changes
    )


def pixels_of(kind, folder, recipe):
    """Training and validation images in units of 0 to 255."""
    index = scan(folder)
    plan = Plan(index, index, recipe, [range(1)], 0, 1)
    loader = make_loader(kind, plan, device=torch.device("cpu"), threads=1)
    mean, deviation = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    batches = [*loader.training(0, 2), *loader.validation()]  # two epochs: two crops
    return [images * deviation + mean for images, _ in batches]


@pytest.mark.parametrize("form", FORMS)
def test_both_loaders_see_the_same_pixels(tmp_path, form, monkeypatch):
    """Named .JPEG whatever it is, as ImageNet's one PNG is. PIL is asked in this process."""
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "image.JPEG").write_bytes(FORMS[form]())
    ours = pixels_of("dali", tmp_path, settings())
    theirs = reference(tmp_path, settings())
    for mine, expected in zip(ours, theirs, strict=True):
        difference = (mine - expected).abs()
        assert difference.mean() < 0.3
        assert difference.max() < 3.5


@pytest.mark.parametrize("antialias", [True, False])
def test_the_resize_is_pils_with_antialiasing_and_torchvisions_without(tmp_path, antialias):
    """At most 2 of 255 off PIL's, 0.1 on average; without antialiasing equal to torchvision's."""
    (tmp_path / "class").mkdir()
    for number in range(8):
        image = picture(120 + 31 * number, 400 - 29 * number)
        image.save(tmp_path / "class" / f"{number}.JPEG", quality=95)
    recipe = settings(antialias=antialias)
    for mine, expected in zip(
        pixels_of("dali", tmp_path, recipe), reference(tmp_path, recipe), strict=True
    ):
        difference = (mine - expected).abs()
        assert difference.max() < (2.5 if antialias else 0.01)
        assert difference.mean() < (0.1 if antialias else 0.01)


def reference(folder, recipe):
    """What the torchvision loader's processes do, without starting them."""
    from dali_pipeline.loading import torchvision_loader as reference_loader

    index = scan(folder)
    plan = Plan(index, index, recipe, [range(1)], 0, 1)
    mean, deviation = (255 * torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    batches = [
        reference_loader._decode_training(plan, place) for place in plan.training_places(0, 2)
    ]
    batches += [reference_loader._decode_validation(plan, ids) for ids in plan.validation_ids()]
    return [images * deviation + mean for images, _ in batches]


def test_a_jpeg_that_ends_too_early_is_noticed_wherever_it_is_cut():
    exif = Image.Exif()
    whole = encoded(picture(), "JPEG", exif=exif)
    assert not is_cut_off(whole)
    assert not is_cut_off(whole + b"anything")
    for length in (len(whole) // 2, len(whole) - 10, len(whole) - 2, len(whole) - 1):
        assert is_cut_off(whole[:length])
    assert not is_cut_off(encoded(picture(), "PNG")[:-10])  # not a JPEG: its decoder notices
