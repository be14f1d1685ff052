"""The models and the paper's initialisation (section 5.1).

ResNets are torchvision's, whose stride-2 convolution is the 3×3 one, as in the paper. For small
images there are the shallow ResNets of He et al. 2015, section 4.2, made of the same blocks.
"""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import SMALL_RESNETS

# torchvision builders whose networks are made of BasicBlock or Bottleneck
IMAGENET_RESNETS = tuple(
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if name.startswith(("resnet", "resnext", "wide_resnet"))
)


class SmallResNet(nn.Module):
    """The CIFAR ResNet of He et al. 2015, §4.2: three stages of 16, 32 and 64 channels.

    Takes float images (batch, 3, height, width) and returns logits (batch, num_classes).
    """

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        stages, channels = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                shortcut = None
                if stride != 1:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, width, kernel_size=1, stride=stride, bias=False),
                        nn.BatchNorm2d(width),
                    )
                stages.append(BasicBlock(channels, width, stride, shortcut))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (batch, num_classes)."""
        return self.fc(self.pool(self.stages(self.stem(images))).flatten(1))


def build_model(name: str, num_classes: int, *, zero_gamma: bool, seed: int) -> nn.Module:
    """Return the named network with the paper's initialisation, the same for the same ``seed``.

    Raises BadInput for a name that is not known.
    """
    torch.manual_seed(seed)
    if name in SMALL_RESNETS:
        model: nn.Module = SmallResNet(SMALL_RESNETS[name], num_classes)
    elif name in IMAGENET_RESNETS:
        model = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    else:
        known = ", ".join([*SMALL_RESNETS, *IMAGENET_RESNETS])
        raise BadInput(f"no model {name}: --model takes one of {known}")
    initialise(model, zero_gamma=zero_gamma)
    return model


def initialise(model: nn.Module, *, zero_gamma: bool = True) -> None:
    """Initialise a ResNet in place as the paper does (section 5.1).

    He for convolutions; γ = 1 and β = 0 in batch norms, but γ = 0 in the last one of each residual
    block, which then starts as the identity; the last fully connected layer from N(0, 0.01²).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, _BatchNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    if zero_gamma:
        for module in model.modules():
            last = last_batch_norm(module)
            if last is not None:
                nn.init.zeros_(last.weight)


def last_batch_norm(block: nn.Module) -> _BatchNorm | None:
    """Return the batch norm that ends a residual block's branch; None if this is no such block."""
    if isinstance(block, Bottleneck):
        return block.bn3
    if isinstance(block, BasicBlock):
        return block.bn2
    return None
