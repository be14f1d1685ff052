"""What a GPU could do at most, what a model asks of it, and how it runs meanwhile."""

from __future__ import annotations

import contextlib
import statistics
import subprocess

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
WATCHED = {"sm_mhz": "clocks.sm", "watts": "power.draw", "celsius": "temperature.gpu"}
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


class Watch:
    """Reads a GPU's clock of its multiprocessors, power and temperature while a context runs.

    By ``nvidia-smi``, five times a second; nothing is known where there is none, or on a CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._card = card_name(device)
        self._rows: list[list[float]] = []
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Watch:
        if self._card is not None:
            query = f"--query-gpu={','.join(WATCHED.values())}"
            form = "--format=csv,noheader,nounits"
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    ["nvidia-smi", f"--id={self._card}", query, form, "--loop-ms=200"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._rows = list(
                filter(None, map(_numbers, self._process.communicate()[0].split("\n")))
            )

    def facts(self) -> dict[str, float]:
        """Return the medians by name; empty where nothing is known."""
        rows = [row for row in self._rows if len(row) == len(WATCHED)]
        columns = zip(*rows, strict=True)
        return {n: statistics.median(c) for n, c in zip(WATCHED, columns, strict=False)}


def card_name(device: torch.device) -> str | None:
    """Return what nvidia-smi calls a GPU: its UUID. None for a CPU."""
    if device.type != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _numbers(line: str) -> list[float]:
    """Return a line's numbers; none where it has something else, as [N/A]."""
    try:
        return [float(cell) for cell in line.split(",")]
    except ValueError:
        return []
