"""Average precision as COCO defines it, by pycocotools, over a whole split."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from detection.coco_format import Coco, Target
from hvd_utils.horovod_backend.world import World

COMMON = ("image_id", "category_id", "score")  # of a result, for boxes and masks alike


@torch.no_grad()
def judge(model: nn.Module, data: Coco, world: World) -> dict[str, float] | None:
    """Return box and mask AP and AP50 on rank 0, percent, each picture counted once; collective."""
    model.eval()
    categories, dtype = list(data.categories), next(model.parameters()).dtype
    mine = {}
    for item in range(world.rank, len(data), world.size):
        image, _ = data[item]
        (found,) = model([image.to(world.device, dtype)])
        mine[data.image_id(item)] = results(data.image_id(item), found, categories)
    everywhere = {number: found for part in world.gather(mine) for number, found in part.items()}
    if not world.is_root:
        return None
    return average_precision(data, [one for n in sorted(everywhere) for one in everywhere[n]])


def results(image_id: int, found: Target, categories: Sequence[int]) -> list[dict[str, Any]]:
    """Return what a model found in a picture as COCO's results: boxes and run-length masks."""
    from pycocotools import mask

    boxes = found["boxes"].double().cpu()
    boxes[:, 2:] -= boxes[:, :2]
    masks = (found["masks"][:, 0] > 0.5).byte().cpu().numpy()
    labels, scores = found["labels"].tolist(), found["scores"].tolist()
    return [
        {
            "image_id": image_id,
            "category_id": categories[label - 1],
            "score": score,
            "bbox": box,
            "segmentation": mask.encode(np.asfortranarray(pixels)),
        }
        for label, score, box, pixels in zip(labels, scores, boxes.tolist(), masks, strict=True)
    ]


def average_precision(truth: Coco, found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return COCO's box and mask AP and AP50 of all results, percent."""
    from pycocotools.cocoeval import COCOeval

    precision = dict.fromkeys(("box_ap", "box_ap50", "mask_ap", "mask_ap50"), 0.0)
    if not found:
        return precision
    for name, kind, field in (("box", "bbox", "bbox"), ("mask", "segm", "segmentation")):
        # Areas, by which it sorts objects, are those of boxes or of masks: read anew for each.
        rows = [{key: one[key] for key in (*COMMON, field)} for one in found]
        with contextlib.redirect_stdout(io.StringIO()):  # it tells each of its stages
            evaluation = COCOeval(truth.coco, truth.coco.loadRes(rows), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        precision[f"{name}_ap"], precision[f"{name}_ap50"] = map(float, 100 * evaluation.stats[:2])
    return precision
