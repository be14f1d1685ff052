"""torchvision's Mask R-CNN on a ResNet with a feature pyramid, whose batch norms are frozen."""

from __future__ import annotations

import argparse

import torchvision
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.networks.freezing import freeze
from hvd_utils.networks.head import head_names
from hvd_utils.nn.models import IMAGENET_RESNETS
from hvd_utils.weights.initial import COUNTER, match
from hvd_utils.weights.sources import digest, read_weights

STAGES = ("layer1", "layer2", "layer3", "layer4")
FROZEN = ("conv1", "layer1")  # where weights are given (Detectron's and torchvision's default)
REPRESENTATION = 1024  # what torchvision's box head makes of a region


def build_detector(
    settings: Settings, options: argparse.Namespace, categories: int
) -> tuple[nn.Module, str, str | None]:
    """Return the detector, a line that tells which weights it starts from, and their checksum.

    Raises BadInput where ``--init`` is of another network than ``--model``.
    """
    resnet, told, checksum = backbone(settings.model, settings.init)
    deepest = resnet.fc.in_features
    channels = [deepest // 8, deepest // 4, deepest // 2, deepest]
    names = {stage: str(place) for place, stage in enumerate(STAGES)}
    pyramid = BackboneWithFPN(resnet, names, channels, options.width)
    detector = MaskRCNN(
        pyramid,
        min_size=options.min_size,
        max_size=options.max_size,
        box_batch_size_per_image=options.rois,
        box_predictor=FastRCNNPredictor(REPRESENTATION, categories + 1),
        mask_head=MaskRCNNHeads(options.width, [options.width] * 4, 1),
        mask_predictor=MaskRCNNPredictor(options.width, options.width, categories + 1),
    )
    return detector.train(), told, checksum


def backbone(name: str, init: str | None) -> tuple[torchvision.models.ResNet, str, str | None]:
    """Return a ResNet of torchvision with frozen batch norms, and which weights it has."""
    if name not in IMAGENET_RESNETS:
        raise BadInput(f"--model {name} is no ResNet of torchvision: set resnet50 or resnet101")
    resnet = getattr(torchvision.models, name)(norm_layer=FrozenBatchNorm2d)
    if init is None:
        return resnet, "init: random weights; --init gives the backbone trained ones", None
    weights = read_weights(init)
    checksum = digest(weights)
    found = match(resnet, weights, init, name)
    resnet.load_state_dict(found.loaded, strict=False)
    freeze(resnet, FROZEN)
    head = head_names(resnet)
    taken = [each for each in found.loaded if each not in head]
    rest = [each for each in weights if each not in taken and not each.endswith(COUNTER)]
    told = (
        f"init: all {len(taken)} tensors of the backbone from {init} ({checksum}); new: the "
        f"pyramid and the heads; not used: {', '.join(rest) or 'nothing'}"
    )
    return resnet, told, checksum
