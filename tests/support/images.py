"""Made-up pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_jpegs(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write smooth random JPEGs of various sizes into class folders."""
    random = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = random.integers(24, 96, size=2)
            coarse = random.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((int(width), int(height)), Image.BICUBIC)
            image.save(folder / name / f"{number:03d}.JPEG", quality=92)
