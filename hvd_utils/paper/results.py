"""The paper's results as data: top-1 error on ImageNet's validation set, percent.

Goyal et al. 2017, arXiv 1706.02677v2: Tables 1 and 2 and Figure 1; each is the mean of 5 runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hvd_utils.config.recipe import Recipe

VAL_IMAGES = 50_000
NOT_COMPARED = ("seed", "order", "workers", "precision")  # workers are compared as kn


class Reference(NamedTuple):
    """A figure of the paper: mean and, where it is given, standard deviation."""

    error: float
    std: float | None
    source: str

    def __str__(self) -> str:
        return f"{self.error:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")


# Figure 1: error by minibatch, for n = 32 and all else by the recipe.
BY_MINIBATCH = {
    128: Reference(23.49, 0.12, "Figure 1"),
    256: Reference(23.60, 0.12, "Table 1"),
    512: Reference(23.48, 0.09, "Figure 1"),
    1024: Reference(23.53, 0.08, "Figure 1"),
    2048: Reference(23.49, 0.11, "Figure 1"),
    4096: Reference(23.56, 0.12, "Figure 1"),
    8192: Reference(23.74, 0.09, "Table 1"),
    16384: Reference(24.79, 0.27, "Figure 1"),
    32768: Reference(27.55, 0.28, "Figure 1"),
    65536: Reference(33.96, 0.80, "Figure 1"),
}

# The controls: minibatch, what differs from the recipe, and the error.
CONTROLS: tuple[tuple[int, Mapping[str, Any], Reference], ...] = (
    (8192, {"warmup": "none"}, Reference(24.84, 0.37, "Table 1")),
    (8192, {"warmup": "constant"}, Reference(25.88, 0.56, "Table 1")),
    (8192, {"reference_rate": 0.05}, Reference(24.27, None, "Table 2a")),
    (8192, {"reference_rate": 0.2}, Reference(24.05, None, "Table 2a")),
    (8192, {"scaling": "none"}, Reference(41.67, None, "Table 2a")),
    (8192, {"scaling": "sqrt"}, Reference(26.22, None, "Table 2a")),
    (256, {"zero_gamma": False}, Reference(23.84, None, "Table 2b")),
    (8192, {"zero_gamma": False}, Reference(24.11, None, "Table 2b")),
    (256, {"model": "resnet101"}, Reference(22.08, None, "Table 2c")),
    (8192, {"model": "resnet101"}, Reference(22.36, None, "Table 2c")),
)


def find_reference(
    experiment: Mapping[str, Any], val_images: int | None, minibatch: int | None = None
) -> Reference | None:
    """Return the paper's figure for an experiment, by its settings; None where it has none.

    It holds for ImageNet alone, which the number of validation images identifies. ``minibatch`` is
    kn where it is known otherwise than as workers times n.
    """
    if val_images != VAL_IMAGES:
        return None
    images = minibatch or (experiment["workers"] or 0) * experiment["batch_per_worker"]
    usual = Recipe().model_dump(mode="json")
    departs = {
        name: value
        for name, value in experiment.items()
        if name not in NOT_COMPARED and value != usual.get(name)
    }
    if images <= usual["reference_minibatch"]:
        departs.pop("warmup", None)  # then there is none in any case
        if images == usual["reference_minibatch"]:
            departs.pop("scaling", None)
    if not departs:
        return BY_MINIBATCH.get(images)
    found = (figure for size, control, figure in CONTROLS if (size, control) == (images, departs))
    return next(found, None)
