"""An image's colours: RGB of 8 bits, whatever it is stored as."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB; of 16 bits a channel, the upper 8: PIL would cut off at 255."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image.convert("RGB")
