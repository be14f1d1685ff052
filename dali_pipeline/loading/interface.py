"""The interface of a loader, as the training loop uses it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

import torch

# ImageNet's channel means and standard deviations, of pixels in 0 to 1 (section 5.1).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Images, float32 (batch, 3, side, side), of the plan's side, normalised, channels-last in memory;
# labels, int64 (batch,), or where images are mixed float32 (batch, classes), which sum to 1
Batch = tuple[torch.Tensor, torch.Tensor]


class Loader(Protocol):
    """A source of batches on the run's device."""

    def training(self, first_step: int, last_step: int) -> Generator[Batch]:
        """Yield the batches of these steps, one for each pass of the plan in turn."""

    def validation(self) -> Iterator[Batch]:
        """Yield this process's share of the validation set once."""
