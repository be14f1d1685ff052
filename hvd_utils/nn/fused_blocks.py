"""Residual networks whose batch norms do what follows too: the shortcut's sum, and ReLU.

For GPUs, where ``triton_batch_norm`` does all of it in one pass over memory. The modules, and so
the names in a checkpoint, are torchvision's; only what calls them differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from hvd_utils.nn.batch_norm import WorkerBatchNorm2d, batch_norms
from hvd_utils.nn.models import SmallResNet


class FusedBasicBlock(BasicBlock):
    """torchvision's ``BasicBlock``, with ReLU and sum left to its ``WorkerBatchNorm2d``."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        shortcut = images if self.downsample is None else self.downsample(images)
        images = self.bn1(self.conv1(images), relu=True)
        return self.bn2(self.conv2(images), shortcut, relu=True)


class FusedBottleneck(Bottleneck):
    """torchvision's ``Bottleneck``, with ReLU and sum left to its ``WorkerBatchNorm2d``."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        shortcut = images if self.downsample is None else self.downsample(images)
        images = self.bn1(self.conv1(images), relu=True)
        images = self.bn2(self.conv2(images), relu=True)
        return self.bn3(self.conv3(images), shortcut, relu=True)


class FusedResNet(ResNet):
    """torchvision's ``ResNet``, with the stem's ReLU left to its ``WorkerBatchNorm2d``."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, classes)."""
        images = self.maxpool(self.bn1(self.conv1(images), relu=True))
        images = self.layer4(self.layer3(self.layer2(self.layer1(images))))
        return self.fc(torch.flatten(self.avgpool(images), 1))


class FusedSmallResNet(SmallResNet):
    """``SmallResNet``, likewise."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, classes)."""
        convolution, norm, _ = self.stem
        images = self.stages(norm(convolution(images), relu=True))
        return self.fc(self.pool(images).flatten(1))


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    BasicBlock: FusedBasicBlock,
    Bottleneck: FusedBottleneck,
    ResNet: FusedResNet,
    SmallResNet: FusedSmallResNet,
}


def use_fused_kernel(model: nn.Module, kernel: Callable, fewest_workers: int = 1) -> None:
    """Have the model's ``WorkerBatchNorm2d`` computed by ``kernel``, in place.

    ``kernel`` is called as ``triton_batch_norm.batch_norm``. Passes of less than ``fewest_workers``
    are left to PyTorch's kernels, unless the model is compiled. Networks and blocks that are not
    torchvision's or ``SmallResNet``, or have another activation than ReLU, leave it at the norm.
    """
    for norm in batch_norms(model):
        if isinstance(norm, WorkerBatchNorm2d):
            norm.fused_kernel, norm.fewest_workers = kernel, fewest_workers
    for module in model.modules():
        if type(module) in FUSED and _can_be_fused(module):
            module.__class__ = FUSED[type(module)]


def _can_be_fused(module: nn.Module) -> bool:
    norm: Any
    relu: Any
    if isinstance(module, SmallResNet):
        _, norm, relu = module.stem
    else:
        norm, relu = module.bn1, module.relu
    return isinstance(norm, WorkerBatchNorm2d) and type(relu) is nn.ReLU
