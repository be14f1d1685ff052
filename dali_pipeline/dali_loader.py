"""The DALI loader: runs the graphs on planned batches and hands their output over uncopied."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from PIL import Image

from dali_pipeline.ahead import ahead
from dali_pipeline.graph import training_graph, validation_graph
from dali_pipeline.index import bad_image
from dali_pipeline.interface import Batch
from dali_pipeline.plan import Plan, TrainingBatch, ValidationBatch

PREFETCH = 2  # batches decoded ahead
PLANNED = 16  # batches planned ahead: an epoch's permutation takes 0.05 s


class DaliLoader:
    """Decodes on the GPU where ``device`` is one, else on ``threads`` CPU threads."""

    def __init__(self, plan: Plan, device: torch.device, threads: int) -> None:
        self._plan = plan
        self._device = device
        self._threads = threads
        self._validation: _Pipeline | None = None

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield training batches; see ``Loader``."""
        plan = self._plan

        def planned() -> Iterator[TrainingBatch]:
            places = plan.training_places(first_step, last_step)
            return (plan.training_batch(step, fused) for step, fused in places)

        return self._pipeline(training_graph, planned, plan.training_size).batches()

    def validation(self) -> Iterator[Batch]:
        """Yield validation batches; see ``Loader``. The pipeline is built once and kept."""
        if self._validation is None:
            self._validation = self._pipeline(
                validation_graph,
                lambda: map(self._plan.validation_batch, self._plan.validation_ids()),
                self._plan.settings.val_batch,
            )
        return self._validation.batches()

    def _pipeline(self, graph: Callable, plan: Callable[[], Iterator], size: int) -> _Pipeline:
        return _Pipeline(
            graph, plan, self._device, self._plan.settings.resolution, size, self._threads
        )


class _Pipeline:
    """A built DALI pipeline, and the planned batches that it has taken but not yet given back."""

    def __init__(
        self,
        graph: Callable,
        plan: Callable[[], Iterator],
        device: torch.device,
        resolution: int,
        size: int,
        threads: int,
    ) -> None:
        self._plan = plan
        self._device = device
        self._pending: deque[TrainingBatch | ValidationBatch] = deque()
        on_gpu = device.type == "cuda"
        self._pipeline = graph(
            self,
            resolution,
            on_gpu,
            batch_size=size,
            num_threads=threads,
            device_id=device.index if on_gpu else None,
            prefetch_queue_depth=PREFETCH,
        )
        self._pipeline.build()

    def __iter__(self) -> Iterator:
        """Yield planned batches to DALI, which runs ahead, and remember them."""
        for batch in ahead(self._plan(), PLANNED):
            self._pending.append(batch)
            yield batch

    def batches(self) -> Iterator[Batch]:
        """Yield decoded batches until the plan ends; afterwards it can be run again."""
        while True:
            try:
                (images,) = self._pipeline.run()
            except StopIteration:
                self._pipeline.reset()
                return
            except RuntimeError as error:
                raise self._explain(error) from error
            labels = torch.from_numpy(self._pending.popleft().labels)
            yield torch.from_dlpack(images.as_tensor()), labels.to(self._device)

    def _explain(self, error: RuntimeError) -> Exception:
        """Return the failure that names the image which stopped DALI; DALI itself does not."""
        for batch in self._pending:
            for path in batch.paths:
                try:
                    with Image.open(path) as image:
                        image.convert("RGB")
                except (OSError, SyntaxError, ValueError) as reason:
                    return bad_image(path, reason)
        return error
