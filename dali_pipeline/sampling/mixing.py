"""How a worker's images are mixed with one another: a pure function of seed, step and worker.

mixup (Zhang et al. 2017, arXiv 1710.09412) blends an image with another, CutMix (Yun et al. 2019,
arXiv 1905.04899) pastes a box of another into it; the labels are mixed in the same shares. As in
torchvision, a batch is mixed in one way, each image with the one before it. Here a batch is the n
images of one logical worker, so the result is the same on any number of processes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dali_pipeline.sampling.crops import Stream, Windows

# Numbers of draws, behind those of images, whose streams have other keys but the same form.
_WHICH, _SHARE, _ROW, _COLUMN = range(128, 132)


class Mixing(NamedTuple):
    """How the images of each worker are mixed; arrays (workers,)."""

    share: np.ndarray  # float64, of an image's own label
    pasted: np.ndarray  # bool: by CutMix, not by mixup
    boxes: Windows  # what CutMix pastes; empty for mixup


def mixing(
    seed: int, step: int, workers: range, side: int, *, mixup: float, cutmix: float
) -> Mixing:
    """Return how ``workers`` mix their images of ``side`` pixels in ``step``.

    ``mixup`` and ``cutmix`` are the α of the share's Beta(α, α) distribution, 0 for never; where
    both are given, each worker's step has one of them with equal chance.
    """
    from scipy.special import betaincinv  # here: slow to load, and few runs mix

    stream = Stream(seed, np.full(len(workers), step), np.array(workers))
    pasted = stream.uniform(_WHICH) < (0.5 if mixup and cutmix else float(bool(cutmix)))
    alpha = np.where(pasted, cutmix, mixup)
    share = betaincinv(alpha, alpha, stream.uniform(_SHARE))  # the inverse of its distribution
    boxes = _boxes(stream, np.where(pasted, share, 1.0), side)
    share = np.where(pasted, 1 - boxes.height * boxes.width / side**2, share)
    return Mixing(share, pasted, boxes)


def _boxes(stream: Stream, share: np.ndarray, side: int) -> Windows:
    """Return boxes that leave about ``share`` of an image: cut off at its edges, as in CutMix."""
    half = (0.5 * np.sqrt(1 - share) * side).astype(np.int32)
    ends = []
    for draw in (_ROW, _COLUMN):
        centre = (stream.uniform(draw) * side).astype(np.int32)
        ends.append((np.maximum(centre - half, 0), np.minimum(centre + half, side)))
    (top, bottom), (left, right) = ends
    return Windows(top, left, bottom - top, right - left)
