"""Find the images that DALI cannot decode: its error stops the whole batch and names none."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from nvidia.dali import fn, pipeline_def, types
from PIL import Image, UnidentifiedImageError


def find_undecodable(ids: np.ndarray, encoded: Sequence[np.ndarray]) -> Iterator[tuple[int, str]]:
    """Yield the id of each image that cannot be decoded, and why."""
    for image, data in zip(ids.tolist(), encoded, strict=True):
        if not _dali_decodes(data):
            yield image, why_undecodable(data.tobytes())


@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def _one_image(data: np.ndarray):
    encoded = fn.external_source(lambda: [data], batch=True, dtype=types.UINT8, ndim=1)
    return fn.decoders.image(encoded, output_type=types.RGB)


def _dali_decodes(data: np.ndarray) -> bool:
    try:
        pipeline = _one_image(data)
        pipeline.build()
        pipeline.run()
    except RuntimeError:
        return False
    return True


def why_undecodable(data: bytes) -> str:
    """Return PIL's reason for an image that DALI does not decode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what ends in an error here
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # decoders fail on broken files in every way there is
        return str(error) or repr(error)
    return "DALI does not decode it, though PIL does"
