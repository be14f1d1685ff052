"""Ways of decoding that fail, for the probe, as it was reported of GPUs' decoders."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from dali_pipeline.loading.decoding.crops import Crops


class Sound:
    """Makes an image of the bytes of its file alone, without any decoder."""

    def __init__(self, way: str, device: int | None, threads: int) -> None:
        self.way = way

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return images, float32 (images, 8, 8, 3)."""
        grey = [float(image.sum(dtype=np.int64) % 200) for image in crops.encoded]
        made = np.ones((1, 8, 8, 3), np.float32) * np.array(grey)[:, None, None, None]
        return made.astype(np.float32)

    def rate(self, crops: Crops) -> float:
        """Return images/s."""
        return {"cpu": 1000.0, "gpu": 2000.0, "hardware": 3000.0}[self.way]


class Crashes(Sound):
    """Dies as nvImageCodec 0.9 is reported to on an H100."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Die."""
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError


class IsKilled(Sound):
    """Is killed from outside, as by the kernel when memory is short."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Be killed."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Hangs(Sound):
    """Never answers."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Wait for ever."""
        while True:
            time.sleep(60)


class Refuses(Sound):
    """Raises as DALI does on an A100."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Raise."""
        raise RuntimeError("nvImageCodec failure: '#8'\nin the decoder")


class RoundsOtherwise(Sound):
    """Differs as much as decoders do."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return images one grey level off."""
        return super().images(crops, batch, whole) + 1


class Overwrites(Sound):
    """Writes before the memory is free: one image has other pixels, always the same ones."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return images of which the one with the smallest file is wrong."""
        made = super().images(crops, batch, whole)
        made[np.argmin([len(image) for image in crops.encoded])] += 40
        return made


class FailsWholeImages(Sound):
    """Decodes windows well and whole images not."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return images of which the whole ones are wrong."""
        return super().images(crops, batch, whole) + 40 * whole


class DependsOnBatch(Sound):
    """Decodes the first three quarters of a batch by another algorithm than the rest."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return images that differ by their place in the batch."""
        made = super().images(crops, batch, whole)
        place = np.arange(len(made)) % batch
        made[place < 0.75 * batch] += 0.25
        return made


class DependsOnOrder(Sound):
    """Adds to an image something of the one before it."""

    def images(self, crops: Crops, batch: int, whole: bool = False) -> np.ndarray:
        """Return images that differ by their neighbours."""
        made = super().images(crops, batch, whole)
        made[1:] += 0.001 * made[:-1]
        return made
