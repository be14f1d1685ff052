"""The structure of torchvision's ``references/classification/train.py``, for torchrun.

DistributedDataParallel over gloo; loss and two accuracies are read in every step.
"""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.harness.steady import Clock, span_of
from benchmarks.peer_loops.common import Mean, Training, hits, numbered, read_options

PRINT_EVERY = 10  # steps


def main() -> None:
    """Train; rank 0 tells how long it took."""
    options = read_options()
    dist.init_process_group("gloo")
    training = Training(options, dist.get_rank(), dist.get_world_size())
    model = DistributedDataParallel(training.model())
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    clock = Clock(span_of(options))
    loss_mean, top1, top5, speed = Mean(), Mean(), Mean(), Mean()
    for made, (images, labels) in numbered(training):
        began = time.perf_counter()
        logits = model(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, fifth = hits(logits, labels, (1, 5))
        loss_mean.add(loss.item())
        top1.add(first.item(), len(images))
        top5.add(fifth.item(), len(images))
        speed.add(len(images) / (time.perf_counter() - began))
        if made % PRINT_EVERY == 0 and dist.get_rank() == 0:
            print(f"{made} {loss_mean.value:.4f} {top1.value:.2f} {top5.value:.2f} {speed.value}")
        clock.tick(made)
    if dist.get_rank() == 0:
        clock.tell()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
