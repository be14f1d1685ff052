"""The structure of pytorch/examples' ``imagenet/main.py`` with ``--multiprocessing-distributed``.

DistributedDataParallel over gloo, started by torchrun instead of by itself, which changes nothing
in the steady state; meters of data and batch time, loss and two accuracies.
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
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    clock = Clock(span_of(options))
    data, whole, losses, top1, top5 = Mean(), Mean(), Mean(), Mean(), Mean()
    began = time.time()
    for made, (images, labels) in numbered(training):
        data.add(time.time() - began)
        logits = model(images)
        loss = criterion(logits, labels)
        first, fifth = hits(logits, labels, (1, 5))
        losses.add(loss.item(), len(images))
        top1.add(first.item(), len(images))
        top5.add(fifth.item(), len(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        whole.add(time.time() - began)
        began = time.time()
        if made % PRINT_EVERY == 0:
            means = (mean.value for mean in (whole, data, losses, top1, top5))
            print(made, *(f"{mean:.3f}" for mean in means))
        clock.tick(made)
    if dist.get_rank() == 0:
        clock.tell()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
