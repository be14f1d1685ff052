"""Decode by the graphs of training and validation, to look at the images and to time it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from nvidia.dali import Pipeline

from dali_pipeline.loading.dali.graph import Target, training_graph, validation_graph
from dali_pipeline.loading.decoding.crops import Crops
from dali_pipeline.loading.interface import MEAN, STD

SIDE = 224  # pixels of the images made
READY = 4  # batches before the clock starts: kernels are loaded, and what was ready is used up
TIMED = 8  # batches


class ByDali:
    """Decodes by one of ``WAYS`` on GPU number ``device``; None: by DALI on a CPU alone."""

    def __init__(self, way: str, device: int | None, threads: int) -> None:
        self._way, self._device, self._threads = way, device, threads

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return the images made of ``crops`` in batches of ``batch``.

        ``whole`` says to decode whole images instead of windows, as validation does. They are
        float32 (images, side, side, 3), in grey levels of 255.
        """
        starts = range(0, len(crops.encoded), batch)
        parts = [crops.part(slice(i, i + batch)) for i in starts]
        pipeline = self._pipeline(parts, batch, whole)
        made = []
        for _ in starts:
            (images,) = pipeline.run()
            images = images.as_cpu() if self._device is not None else images
            made.append(np.asarray(images.as_tensor()))
        deviation, mean = np.array([STD, MEAN], np.float32)
        return 255 * (np.concatenate(made) * deviation + mean)

    def rate(self, crops: Crops) -> float:
        """Return how many images/s are decoded, resized and normalised, in one batch."""
        images = len(crops.encoded)
        pipeline = self._pipeline([crops] * (READY + TIMED + 2), images)  # 2 are made ahead
        for _ in range(READY):
            pipeline.run()
        began = time.perf_counter()
        for _ in range(TIMED):
            pipeline.run()  # without a stream, the host waits until the batch is made
        return TIMED * images / (time.perf_counter() - began)

    def _pipeline(self, parts: Sequence[Crops], batch: int, whole: bool = False) -> Pipeline:
        target = Target(True, self._way, SIDE, antialias=True, largest=parts[0].largest)
        graph, items = training_graph, map(_windows, parts)
        if whole:
            graph, items = validation_graph, map(_whole_images, parts)
            target = target._replace(largest=(0, 0))
        pipeline = graph(
            list(items),
            target,
            batch_size=batch,
            num_threads=self._threads,
            device_id=self._device,
            prefetch_queue_depth=2,
            exec_dynamic=True,
        )
        pipeline.build()
        return pipeline


def _windows(crops: Crops) -> tuple:
    """Return what training's graph takes."""
    mirror = np.zeros(len(crops.encoded), np.int32)
    return crops.encoded, crops.start, crops.shape, np.full_like(crops.shape, SIDE), mirror


def _whole_images(crops: Crops) -> tuple:
    """Return what validation's graph takes: each becomes a square, of which nothing is cut off."""
    return crops.encoded, np.full_like(crops.shape, SIDE), np.zeros_like(crops.start)
