"""How many images/s can this rank train, and load? Runs in the child."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

from hvd_utils.horovod_backend.node import own_gpu_index

if TYPE_CHECKING:
    import torch

    from dali_pipeline.dataset.index import Index
    from hvd_utils.config.settings import Settings

WARM = 3  # steps on a GPU before the clock starts: kernels are chosen
STEPS = 1_000_000  # of the loader's run: more than will be measured


def choose_device(settings: Settings, local_rank: int, local_size: int) -> torch.device:
    """Return the device that this rank trains on, as ``start_world`` chooses it."""
    import torch

    if settings.device == "cpu" or not torch.cuda.is_available():
        if settings.device == "cuda":
            raise RuntimeError("torch sees no CUDA device")
        return torch.device("cpu")
    return torch.device("cuda", own_gpu_index(local_rank, local_size, torch.cuda.device_count()))


def training_rate(
    settings: Settings, device: torch.device, cores: int, ranks: int, classes: int, seconds: float
) -> dict[str, Any]:
    """Make real training steps on made-up images for about ``seconds``; return images/s.

    Neither Horovod nor images: forward, backward and update of the largest pass that the job makes
    on so many ``ranks``, as often as fit. As in the job, each worker of the pass is normalised by
    itself, which on a GPU takes its time.
    """
    import torch

    from hvd_utils.networks.freezing import freeze, training_mode
    from hvd_utils.nn.batch_norm import normalise_by_worker
    from hvd_utils.nn.compile import tune_model
    from hvd_utils.nn.cpu import compute_on
    from hvd_utils.nn.models import recipe_model
    from hvd_utils.nn.precision import computing, parameter_dtype, set_matmul_precision
    from hvd_utils.paper.logical_workers import default_fuse, passes, share
    from hvd_utils.training.optimizer import minibatch_loss

    compute_on(cores)
    memory = None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        memory = torch.cuda.get_device_properties(device).total_memory
    fuse = settings.fuse_workers or default_fuse(settings.batch_per_worker, memory)
    largest_share = share(max(settings.workers or ranks, ranks), ranks - 1, ranks)
    fuse = max(map(len, passes(largest_share, fuse)))
    batch, side, dtype = (
        fuse * settings.batch_per_worker,
        settings.resolution,
        parameter_dtype(settings.precision),
    )
    model = recipe_model(settings, classes).to(device, dtype)
    set_matmul_precision(settings.precision, device)
    freeze(model, settings.freeze)
    normalise_by_worker(model, [range(fuse)], settings.batch_per_worker)
    tune_model(training_mode(model), settings.model_copy(update={"compile": "none"}), device)
    optimizer = torch.optim.SGD(
        model.parameters(), 1e-3, settings.momentum, nesterov=settings.nesterov, fused=True
    )
    images = torch.randn(batch, 3, side, side, device=device, dtype=dtype)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        with computing(settings.precision, device):
            loss = minibatch_loss(model(images), labels, batch)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    steps, taken = _repeat(step, WARM if device.type == "cuda" else 1, seconds)
    return {
        "rate": steps * batch / taken,
        "batch": batch,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "device": device.type,
    }


def _repeat(step, warm: int, seconds: float) -> tuple[int, float]:
    """Return how many steps were counted, and their seconds; slow ones need no warming up."""
    began = time.perf_counter()
    for number in range(warm):
        step()
        if time.perf_counter() - began > seconds:
            return number + 1, time.perf_counter() - began
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        step()
        steps += 1
    return steps, time.perf_counter() - began


def loading_rate(
    settings: Settings,
    splits: tuple[Index, Index],
    device: torch.device,
    cores: int,
    rank: int,
    seconds: float,
) -> dict[str, Any]:
    """Load batches as the trainer gets them for about ``seconds``; return images/s of this rank.

    What was ready before the clock starts is not counted. Each rank reads other images.
    """
    import torch

    from dali_pipeline.loading.loader import make_loader
    from dali_pipeline.sampling.plan import Plan

    train, val = splits
    batch = min(settings.batch_per_worker, len(train))
    changes = {"workers": 1, "batch_per_worker": batch, "seed": 1 + rank}
    plan = Plan(train, val, settings.model_copy(update=changes), [range(1)], 0, 1)
    threads = settings.loader_threads or cores
    loader = make_loader(settings.loader, plan, device=device, threads=threads)
    with closing(loader.training(0, STEPS)) as batches:
        began = time.perf_counter()
        for number in count():
            next(batches)
            if number > 2 * settings.prefetch or time.perf_counter() - began > seconds:
                break
        steps, taken = _repeat(lambda: next(batches), 0, seconds)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    by = {"decode": settings.decode} if device.type == "cuda" and settings.loader == "dali" else {}
    return {"rate": steps * batch / taken, **by}
