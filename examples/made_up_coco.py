"""Write a made-up data set in COCO's format: ``python examples/made_up_coco.py DIR``.

Circles, squares and triangles of any colour on noise, one to four a picture, with their outlines as
polygons. The same options write the same files.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.files import cannot_write
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main

# Corners of each shape. COCO's numbers of categories have gaps too.
CATEGORIES = {1: ("circle", 24), 3: ("square", 4), 7: ("triangle", 3)}
SIDE, CELL = 128, 64  # pixels of a picture, and of the cell that a shape lies in
RADII = (16, 30)  # pixels


def picture(random: np.random.Generator) -> tuple[Image.Image, list[tuple[int, np.ndarray]]]:
    """Return a picture of SIDE × SIDE pixels and its shapes: category, and corners in pixels.

    Corners have the shape (corners, 2), x before y. Shapes do not overlap.
    """
    image = Image.fromarray(random.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8))
    shapes = []
    cells = random.permutation((SIDE // CELL) ** 2)[: random.integers(1, 5)]
    for cell in cells:
        category = int(random.choice(list(CATEGORIES)))
        corners = CATEGORIES[category][1]
        radius = random.uniform(*RADII)
        centre = np.array(divmod(cell, SIDE // CELL)) * CELL + random.uniform(
            radius, CELL - radius, 2
        )
        turned = random.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
        outline = centre + radius * np.stack([np.cos(turned), np.sin(turned)], axis=1)
        colour = tuple(int(part) for part in random.integers(128, 256, 3))
        ImageDraw.Draw(image).polygon([tuple(point) for point in outline], fill=colour)
        shapes.append((category, outline))
    return image, shapes


def annotation(number: int, image: int, category: int, outline: np.ndarray) -> dict:
    """Return a shape as COCO annotates it; sides in pixels, the area by the shoelace formula."""
    x, y = outline.T
    width, height = np.ptp(x), np.ptp(y)
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [[round(float(value), 2) for value in outline.ravel()]],
        "bbox": [round(float(value), 2) for value in (x.min(), y.min(), width, height)],
        "area": round(float(area), 2),
        "iscrowd": 0,
    }


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    """Write ``count`` pictures and their annotations where COCO's ``split`` has them."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for image in range(1, count + 1):
        pixels, shapes = picture(np.random.default_rng((seed, image)))
        name = f"{image:012d}.png"
        pixels.save(folder / split / name)
        images.append({"id": image, "file_name": name, "width": SIDE, "height": SIDE})
        for category, outline in shapes:
            annotations.append(annotation(len(annotations) + 1, image, category, outline))
    categories = [{"id": number, "name": name} for number, (name, _) in CATEGORIES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """Write both splits."""
    parser = Parser(prog="made_up_coco.py", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--train", type=positive, default=400, help="pictures (%(default)s)")
    parser.add_argument("--val", type=positive, default=100, help="pictures (%(default)s)")
    options = parser.parse_args()
    try:
        write_split(options.folder, "train2017", options.train, seed=1)
        write_split(options.folder, "val2017", options.val, seed=2)
    except OSError as error:
        raise cannot_write(options.folder, error) from error
    print(f"{options.folder}: {options.train} training and {options.val} validation pictures")


if __name__ == "__main__":
    run_main(main)
