"""Measure one case of ``benchmarks.gpu`` in a process of its own, which may crash.

``python -m benchmarks.harness.gpu_case SPEC`` prints what it measured as JSON; SPEC is JSON too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.card import Watch, peak, training_flops
from benchmarks.harness.loop import Loop
from dali_pipeline.dataset.scan import scan_splits
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import World, start_world
from hvd_utils.nn.compile import skipped_graphs

WARM = 5  # steps before the clock starts: kernels are chosen, or compiled


def main() -> None:
    """Measure and print."""
    spec = json.loads(sys.argv[1])
    began = time.perf_counter()
    world = start_world(spec["device"])
    settings = Settings.model_validate({"recipe": "benchmark", **spec["settings"]})
    splits = scan_splits(Path(spec["data"])) if spec["data"] else None
    measured = measure(settings, world, splits, spec["steps"], spec["rounds"], began)
    print(json.dumps(measured), flush=True)


def measure(
    settings: Settings, world: World, splits: Any, steps: int, rounds: int, began: float
) -> dict[str, Any]:
    """Return ``seconds`` of a step, one a round, and further ``facts``."""
    loop = Loop(settings, settings.workers, world, splits)
    before = _memory(world.device)
    loop.run(WARM)
    facts: dict[str, Any] = {"memory": _memory(world.device, most=True) - before}
    forward, backward = loop.forward_and_backward(3)
    facts["backward_share"] = backward / (forward + backward)
    loop.run(1)
    facts["seconds_until_ready"] = time.perf_counter() - began
    earlier, seconds = loop.split(), []
    with Watch(world.device) as watch:
        for _ in range(rounds):
            start = time.perf_counter()
            loop.run(steps)
            seconds.append((time.perf_counter() - start) / steps)
    spent = {part: now - earlier[part] for part, now in loop.split().items()}
    facts["split"] = {part: s / (sum(spent.values()) or 1) for part, s in spent.items()}
    if settings.compile == "cudagraphs":
        facts["cudagraph_skips"] = skipped_graphs()
    limit = peak(world.device, settings.precision)
    flops = training_flops(settings.model, 1000, settings.resolution)
    rate = settings.minibatch / sorted(seconds)[len(seconds) // 2]
    facts["of_peak"] = rate * flops / limit if limit else None
    return {"seconds": seconds, "facts": facts | watch.facts()}


def _memory(device: torch.device, most: bool = False) -> int:
    """Return the bytes of a GPU that are in use, or the most since this was last asked."""
    if device.type != "cuda":
        return 0
    if most:
        return torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


if __name__ == "__main__":
    run_main(main)
