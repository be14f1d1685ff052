"""Differences between the final weights of runs: ``python -m hvd_utils.compare RUN RUN``.

Runs of the same recipe and k on any number of processes differ by rounding alone; this shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.run.checkpoint import EITHER, explained, list_checkpoints, load_checkpoint, require

LEAST = 1e-4  # of the largest magnitude of a kind: the least by which a difference is divided


def tensors(state: Mapping[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """Return a checkpoint's floating-point tensors by kind and name."""
    floating = {n: value for n, value in state["model"].items() if value.is_floating_point()}
    momenta = state["optimizer"]["state"]
    averaged = state.get("averaged", {})
    return {
        "weights": {n: value for n, value in floating.items() if ".running_" not in n},
        "momentum": {str(n): momenta[n]["momentum_buffer"] for n in sorted(momenta)},
        "running averages": {n: value for n, value in floating.items() if ".running_" in n},
        "averaged weights": {n: v for n, v in averaged.items() if v.is_floating_point()},
    }


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor, least: float = 0.0) -> float:
    """Return the largest difference of two tensors by the largest magnitude in the second.

    A magnitude below ``least`` counts as that.
    """
    ours, theirs = ours.double(), theirs.double()
    scale = theirs.abs().max().clamp(min=least)
    return ((ours - theirs).abs().max() / scale).item() if scale > 0 else ours.abs().max().item()


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    """Return for each kind of tensor the largest relative difference of two checkpoints' tensors.

    Raises BadInput where they are not of the same model and step.
    """
    mine, other = tensors(ours), tensors(theirs)
    shapes = [
        {kind: {n: v.shape for n, v in part.items()} for kind, part in state.items()}
        for state in (mine, other)
    ]
    if ours["step"] != theirs["step"] or shapes[0] != shapes[1]:
        raise BadInput(
            f"steps {ours['step']} and {theirs['step']} of models {ours['experiment']['model']} "
            f"and {theirs['experiment']['model']} cannot be compared: give runs of one experiment"
        )
    found = {}
    for kind, part in mine.items():
        # Some tensors are 0 but for rounding, as the bias before a batch norm.
        largest = max((v.abs().max().item() for v in other[kind].values()), default=0.0)
        parts = (relative_difference(part[n], other[kind][n], LEAST * largest) for n in part)
        found[kind] = max(parts, default=0.0)
    return found


def newest(path: Path) -> dict[str, Any]:
    """Return the checkpoint ``path``, or the newest one of the run in the folder ``path``."""
    return load_checkpoint(newest_file(path))


def newest_file(path: Path) -> Path:
    """Return ``path``, or the newest checkpoint of the run in the folder ``path``."""
    if not path.is_dir():
        return path
    found = list_checkpoints(path)
    if not found:
        raise BadInput(f"no checkpoint in {path}: {EITHER}")
    return found[0]


def _comparable(path: Path) -> dict[str, Any]:
    state = newest(path)
    require(state, path, "model", "optimizer", "experiment")
    with explained(path):
        tensors(state)
    return state


def main() -> None:
    """Print how far each run is from the first."""
    parser = Parser(prog="python -m hvd_utils.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder or checkpoint")
    first, *others = parser.parse_args().runs
    theirs = _comparable(first)
    rows = [(path, differences(_comparable(path), theirs)) for path in others]  # or it refuses
    print(f"largest difference from {first} at step {theirs['step']}, relative to each tensor")
    widths = {"weights": 10, "momentum": 10, "running averages": 17}
    if theirs.get("averaged"):
        widths["averaged weights"] = 17
    print(" ".join(f"{kind:>{width}}" for kind, width in widths.items()) + "  run")
    for path, apart in rows:
        cells = (f"{apart[kind]:{width}.1e}" for kind, width in widths.items())
        print(f"{' '.join(cells)}  {path}")
