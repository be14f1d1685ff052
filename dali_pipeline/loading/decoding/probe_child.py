"""The child of a probe: decodes crops in one way, as often as is needed to judge it.

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

import numpy as np

from dali_pipeline.loading.decoding.crops import load_crops

PARTS = 8  # batches that the crops are decoded in a second time, in reversed order
DIE_WITH_PARENT = 1  # prctl(2): PR_SET_PDEATHSIG


def main(arguments: Sequence[str]) -> None:
    """Write the images as uint8, how many were others in other batches, and the images/s."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected: no core file
    module, name = arguments[0].split(":")
    way, given, result, device, threads = arguments[1:]
    number = int(device)
    decoder = getattr(import_module(module), name)(
        way, None if number < 0 else number, int(threads)
    )
    crops = load_crops(Path(given))
    whole = decoder.images(crops, len(crops.encoded))
    few = max(1, len(crops.encoded) // PARTS)
    turned = decoder.images(crops.part(slice(None, None, -1)), few)[::-1]
    moved = np.count_nonzero((whole != turned).reshape(len(whole), -1).any(axis=1))
    pixels = np.rint(whole).clip(0, 255).astype(np.uint8)
    np.savez(result, pixels=pixels, moved=moved, rate=decoder.rate(crops))


if __name__ == "__main__":
    main(sys.argv[1:])
