"""The barest PyTorch loop: model, SGD, cross entropy and one batch in memory, over and over.

No data, no log, no checks, no Horovod: what is left when all that training needs is taken away.
``python -m benchmarks.harness.bare_loop`` is started by other benchmarks, which read its output.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness.steady import Clock, add_span, span_of
from hvd_utils.nn.cpu import keep_freed_memory
from hvd_utils.nn.models import build_model

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def read_options() -> argparse.Namespace:
    """Return the options of the command line; their names are the job's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness.bare_loop", description=__doc__
    )
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch-per-worker", type=int, default=32, help="images of a pass")
    parser.add_argument("--workers", type=int, default=1, help="passes accumulated in one step")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", default="none", choices=("none", "default", "cudagraphs"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    add_span(parser)
    return parser.parse_args()


def compiled(model: nn.Module, how: str) -> nn.Module:
    """Return the model as ``--compile`` asks."""
    if how == "none":
        return model
    model.compile(mode="reduce-overhead" if how == "cudagraphs" else None)
    return model


def main() -> None:
    """Make the steps and tell how long they took."""
    options = read_options()
    keep_freed_memory()
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    torch.set_float32_matmul_precision("high" if options.precision == "tf32" else "highest")
    layout = torch.channels_last if options.channels_last else torch.contiguous_format

    model = build_model(options.model, 1000, zero_gamma=True, seed=1)
    model = model.to(device, memory_format=layout).train()
    side = options.resolution
    images = torch.randn(options.batch_per_worker, 3, side, side).to(device, memory_format=layout)
    labels = torch.randint(0, 1000, (options.batch_per_worker,), device=device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
    )
    forward = compiled(model, options.compile)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    dtype = AUTOCAST.get(options.precision)

    span = span_of(options)
    clock = Clock(span)
    for made in range(1, span.last + 1):
        for _ in range(options.workers):
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = functional.cross_entropy(forward(images), labels) / options.workers
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if device.type == "cuda" and made in (span.warm_up, span.last):
            torch.cuda.synchronize()
        clock.tick(made)
    clock.tell()


if __name__ == "__main__":
    main()
