"""The gradients of a real model, in the order in which backprop produces them.

``resnet50.json`` holds those of the default model, since PyTorch takes seconds to import; a test
holds it against the model. ``python -m hvd_utils.scaling.gradients resnet50`` writes it anew.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

RESOLUTION, CLASSES = 224, 1000  # of ImageNet
FOLDER = Path(__file__).parent


class Gradient(NamedTuple):
    """One parameter's gradient."""

    name: str
    elements: int
    ready: float  # the share of backprop's time after which it is there, 0 to 1


def gradient_bytes(precision: str, compression: str) -> int:
    """Return the bytes that one element takes on the network.

    Mixed precision keeps weights, and so their gradients, in fp32; compression makes them 16 bits.
    """
    if compression != "none":
        return 2
    return 8 if precision == "fp64" else 4


@cache
def gradients_of(model: str) -> tuple[Gradient, ...]:
    """Return a model's gradients as backprop produces them; raise BadInput for an unknown name."""
    stored = FOLDER / f"{model}.json"
    if model.isidentifier() and stored.exists():
        return tuple(Gradient(*row) for row in json.loads(stored.read_text()))
    return trace(model)


def trace(model: str) -> tuple[Gradient, ...]:
    """Return the same by running the model, backwards too, on PyTorch's meta device.

    That computes shapes only. A layer's share of the time is taken to be its share of the
    multiplications. Raises BadInput for an unknown name.
    """
    from hvd_utils.cli.imports import quick_imports

    with quick_imports():
        import torch

        from hvd_utils.nn.models import build_model

    with torch.device("meta"):
        network = build_model(model, CLASSES, zero_gamma=True, seed=1)
        images = torch.empty(1, 3, RESOLUTION, RESOLUTION)
    work: dict[str, int] = {}
    order: list[tuple[str, int]] = []

    def count(layer: str):
        def after_forward(module, inputs, output):
            work[f"{layer}.weight"] = output.numel() * module.weight[0].numel()

        return after_forward

    def note(name: str):
        return lambda parameter: order.append((name, parameter.numel()))

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count(name))
    for name, parameter in network.named_parameters():
        parameter.register_post_accumulate_grad_hook(note(name))
    network(images).sum().backward()

    total, done, gradients = sum(work.values()), 0, []
    for name, elements in order:
        done += work.get(name, 0)
        gradients.append(Gradient(name, elements, round(done / total, 6)))
    return tuple(gradients)


if __name__ == "__main__":
    rows = ",\n".join(json.dumps(gradient) for gradient in trace(sys.argv[1]))
    (FOLDER / f"{sys.argv[1]}.json").write_text(f"[\n{rows}\n]\n")
