"""The child of a probe: decodes images in one way, as often as is needed to judge it.

python -m dali_pipeline.loading.decoding.probe_child DECODER WAY CROPS RESULT DEVICE THREADS

DECODER is ``module:class``, made and used as ``by_dali.ByDali`` is; DEVICE is a GPU's number or -1.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dali_pipeline.loading.decoding.crops import Crops, load_crops
from dali_pipeline.loading.decoding.verdict import KINDS, WHOLE

PARTS = 8  # batches that all are decoded in a second time, in reversed order
DIE_WITH_PARENT = 1  # prctl(2): PR_SET_PDEATHSIG


def main(arguments: Sequence[str]) -> None:
    """Write what ``judge`` takes, of each of ``KINDS``, and how many crops/s are decoded."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected: no core file
    module, name = arguments[0].split(":")
    way, given, result, device, threads = arguments[1:]
    number = int(device)
    decoder = getattr(import_module(module), name)(
        way, None if number < 0 else number, int(threads)
    )
    crops = load_crops(Path(given))
    made = {kind: _twice(decoder, crops, whole=kind == WHOLE) for kind in KINDS}
    pixels, moved = zip(*made.values(), strict=True)
    np.savez(result, pixels=np.stack(pixels), moved=moved, rate=decoder.rate(crops))


def _twice(decoder: Any, crops: Crops, whole: bool) -> tuple[np.ndarray, int]:
    """Return the images as uint8, and how many are others in other batches."""
    few = max(1, len(crops.encoded) // PARTS)
    made = decoder.images(crops, len(crops.encoded), whole)
    turned = decoder.images(crops.part(slice(None, None, -1)), few, whole)[::-1]
    moved = int(np.count_nonzero((made != turned).reshape(len(made), -1).any(axis=1)))
    return np.rint(made).clip(0, 255).astype(np.uint8), moved


if __name__ == "__main__":
    main(sys.argv[1:])
