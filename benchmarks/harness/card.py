"""What a GPU could do at most, and what a model asks of it."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hvd_utils.nn.models import build_model

# Dense products of matrices, TFLOP/s, from NVIDIA's data sheets (SXM forms; PCIe ones are slower).
PEAKS: dict[str, dict[str, float]] = {
    "H200": {"fp16": 989, "bf16": 989, "tf32": 494, "fp32": 67},
    "H100": {"fp16": 989, "bf16": 989, "tf32": 494, "fp32": 67},
    "A100": {"fp16": 312, "bf16": 312, "tf32": 156, "fp32": 19.5},
    "V100": {"fp16": 125, "fp32": 15.7},
}
BACKWARD = 2  # products for the gradients of weights and of inputs, by those of the forward pass


def peak(device: torch.device, precision: str) -> float | None:
    """Return the peak of ``device`` in FLOP/s; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found: dict[str, float] = next((p for card, p in PEAKS.items() if card in name), {})
    return found[precision] * 1e12 if precision in found else None


def training_flops(model: str, classes: int, resolution: int) -> float:
    """Return the floating-point operations of training on one image; a product and a sum are two.

    Counted by PyTorch on a model without memory, once forward; the rest of a step is no product.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network: nn.Module = build_model(model, classes, zero_gamma=True, seed=1)
        network.eval()(torch.empty(1, 3, resolution, resolution))
    return counter.get_total_flops() * (1 + BACKWARD)
