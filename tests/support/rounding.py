"""Whether two ways to compute in a precision differ by no more than that precision rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hvd_utils.inspect.compare import newest, tensors
from hvd_utils.nn.models import build_model
from support.launching import TINY, train


def assert_modes_agree_but_for_rounding(
    data: Path, folder: Path, device: str, precision: str, modes: Sequence[str]
) -> None:
    """Train by ``precision`` without torch.compile and in each of its ``modes``.

    A run in 16 bits is off from the one in fp32 by what its products were rounded by, and any other
    way to compute in 16 bits is off as far again. All weights are compared as one vector: a single
    β near 0 may be all rounding.
    """
    ends = {}
    for name in [("fp32", "none"), (precision, "none"), *((precision, mode) for mode in modes)]:
        options = ("--workers", 3, "--precision", name[0], "--compile", name[1], "--no-zero-gamma")
        run = folder / "-".join(name)
        where = ("--data", data, "--output", run, "--device", device)
        ended = train(*where, *options, *TINY, by="python", timeout=400)
        assert ended.code == 0, ended.output
        ends[name] = newest(run)
    fp32, eager = (_weights(ends[name, "none"]) for name in ("fp32", precision))
    rounding = (eager - fp32).norm()
    assert 0 < rounding < 0.3 * (fp32 - _first_weights(ends["fp32", "none"])).norm()
    for mode in modes:
        assert (_weights(ends[precision, mode]) - eager).norm() < 2 * rounding, mode


def _weights(state: Mapping[str, Any]) -> torch.Tensor:
    weights = tensors(state)["weights"]
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


def _first_weights(state: Mapping[str, Any]) -> torch.Tensor:
    experiment = state["experiment"]
    model = build_model(
        experiment["model"], state["num_classes"], zero_gamma=False, seed=experiment["seed"]
    )
    return _weights({"model": model.state_dict(), "optimizer": {"state": {}}})
