"""What the last layer costs by its number of classes: ``python -m benchmarks.head``.

ResNet-50's layer of 2,048 inputs, forward, backward and the recipe's SGD on one process, with 1,000
classes of ImageNet and the 21,841 of ImageNet-22k: seconds of a step, bytes of its weights, of
their gradients and momentum, of the logits, and what each process sends and receives in an
allreduce.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness.loop import wait
from benchmarks.harness.results import check_files
from dali_pipeline.benchmarking.measure import interleaved, machine, write_json
from hvd_utils.cli.argument_types import positive
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.recipe import Recipe
from hvd_utils.training.optimizer import make_sgd, minibatch_loss

INPUTS = 2048  # of ResNet-50's last layer
FLOAT = 4  # bytes


def held_bytes(optimizer: torch.optim.Optimizer, images: int) -> dict[str, int]:
    """Return what the last step left in memory, and what it sent, in bytes.

    The softmax keeps logits, their logarithms and their gradients. An allreduce by a ring sends and
    receives nearly twice the gradients (Patarasu and Yuan 2009).
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = sum(p.grad.nbytes for p in parameters)
    momentum = sum(optimizer.state[p]["momentum_buffer"].nbytes for p in parameters)
    classes = parameters[0].shape[0]
    return {
        "parameters": sum(p.nbytes for p in parameters) + gradients + momentum,
        "logits": 3 * FLOAT * classes * images,
        "allreduce": 2 * gradients,
    }


def step(
    head: nn.Linear, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor
) -> None:
    """Make one step, as far as the inputs' gradients, which the network behind needs."""
    inputs.grad = None
    optimizer.zero_grad()
    minibatch_loss(head(inputs), labels, len(inputs)).backward()
    optimizer.step()
    wait(inputs.device)


def main() -> None:
    """Measure and print a table."""
    options = _options()
    device = torch.device(options.device)
    steps, optimizers = {}, {}
    for classes in options.classes:
        head = nn.Linear(INPUTS, classes).to(device)
        optimizer = optimizers[str(classes)] = make_sgd(head, Recipe())
        inputs = torch.randn(options.images, INPUTS, device=device, requires_grad=True)
        labels = torch.randint(classes, (options.images,), device=device)
        steps[str(classes)] = partial(step, head, optimizer, inputs, labels)
    seconds = {
        name: statistics.median(taken) for name, taken in interleaved(steps, options.rounds).items()
    }
    sizes = {name: held_bytes(one, options.images) for name, one in optimizers.items()}
    print(f"{machine()}; {INPUTS:,} inputs, {options.images} images a step, fp32")
    titles = ("classes", "ms a step", "parameters MB", "logits MB", "allreduce MB")
    print("".join(f"{title:>15}" for title in titles))
    for name, size in sizes.items():
        parts = "".join(f"{value / 1e6:15.1f}" for value in size.values())
        print(f"{int(name):15,}{1e3 * seconds[name]:15.1f}{parts}")
    print("parameters: weights, gradients and momentum; allreduce: of a ring, for each process")
    write_json(options.json, {"seconds": seconds, "bytes": sizes})


def _options() -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.head", description=__doc__)
    parser.add_argument(
        "--classes",
        type=lambda text: [positive(part) for part in text.split(",")],
        default=[1000, 21_841],
        metavar="N,N",
    )
    parser.add_argument("--images", type=positive, default=32, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=9, help="(default: %(default)s)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    check_files(options)
    return options


if __name__ == "__main__":
    run_main(main)
