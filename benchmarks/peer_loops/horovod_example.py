"""The structure of Horovod's ImageNet example, ``examples/pytorch/pytorch_imagenet_resnet50.py``.

Written afresh: the script itself knows one model at one resolution and tells no images/s. Its step:
a rate set, gradients averaged by ``DistributedOptimizer``, the step's loss and accuracy each summed
over the ranks by a call of their own, and shown by a progress bar.
"""

from __future__ import annotations

import os

import horovod.torch as hvd
import torch
from torch.nn import functional
from tqdm import tqdm

from benchmarks.harness.steady import Clock, span_of
from benchmarks.peer_loops.common import Training, numbered, read_options


class Metric:
    """A mean over ranks and steps, updated by an allreduce in each step."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sum, self._count = torch.zeros(()), 0

    def update(self, value: torch.Tensor) -> None:
        """Count a step's value of every rank."""
        self._sum += hvd.allreduce(value.detach(), name=self._name)
        self._count += 1

    @property
    def value(self) -> float:
        """The mean so far."""
        return (self._sum / self._count).item()


def main() -> None:
    """Train; rank 0 tells how long it took."""
    options = read_options()
    hvd.init()
    training = Training(options, hvd.rank(), hvd.size())
    model = training.model()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.0125 * hvd.size(), momentum=0.9, weight_decay=5e-5
    )
    optimizer = hvd.DistributedOptimizer(
        optimizer, named_parameters=model.named_parameters(), op=hvd.Average
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    clock = Clock(span_of(options))
    loss_mean, accuracy_mean = Metric("loss"), Metric("accuracy")
    with open(os.devnull, "w") as nowhere, tqdm(total=len(training), file=nowhere) as bar:
        for made, (images, labels) in numbered(training):
            rate = 0.0125 * (1 + made * (hvd.size() - 1) / (5 * len(training)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            logits = model(images)
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            accuracy_mean.update(accuracy)
            loss = functional.cross_entropy(logits, labels)
            loss_mean.update(loss)
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=loss_mean.value, accuracy=100 * accuracy_mean.value)
            bar.update(1)
            clock.tick(made)
    if hvd.rank() == 0:
        clock.tell()


if __name__ == "__main__":
    main()
