"""The models and the paper's initialisation (section 5.1).

ResNets are torchvision's, whose stride-2 convolution is the 3×3 one, as in the paper. For small
images there are the shallow ResNets of He et al. 2015, section 4.2, made of the same blocks. Other
networks come from ``networks.library``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock

from hvd_utils.config.recipe import SMALL_RESNETS, Recipe
from hvd_utils.networks.head import head_layers
from hvd_utils.networks.library import CLASSIFIERS, build, zero_last_gammas

# torchvision builders whose networks are made of BasicBlock or Bottleneck
IMAGENET_RESNETS = tuple(
    name for name in CLASSIFIERS if name.startswith(("resnet", "resnext", "wide_resnet"))
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


def recipe_model(recipe: Recipe, num_classes: int) -> nn.Module:
    """Return the network of a recipe, which takes images of all the recipe's sizes."""
    sides = (recipe.resolution, recipe.resolution_from, recipe.val_resolution)
    return build_model(
        recipe.model,
        num_classes,
        zero_gamma=recipe.zero_gamma,
        seed=recipe.seed,
        by=recipe.initialise,
        sides=[side for side in sides if side],
    )


def build_model(
    name: str,
    num_classes: int,
    *,
    zero_gamma: bool,
    seed: int,
    by: str = "paper",
    sides: Sequence[int] = (),
) -> nn.Module:
    """Return the named network, initialised as ``by`` says, the same for the same ``seed``.

    ``by`` is ``paper`` or ``library``. ``sides`` are those of its images in pixels, that of
    training first. Raises BadInput for a name that is not known; see ``library.build``.
    """
    torch.manual_seed(seed)
    if name in SMALL_RESNETS:
        model: nn.Module = SmallResNet(SMALL_RESNETS[name], num_classes)
    elif name in IMAGENET_RESNETS:  # they take images of any size
        model = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    else:
        model = build(name, num_classes, sides)
    if by == "paper":
        initialise(model)
    else:
        restore_gammas(model)
    if zero_gamma:
        zero_last_gammas(model)
    return model


def initialise(model: nn.Module) -> None:
    """Initialise a network in place as the paper does its ResNets (section 5.1).

    He for convolutions; γ = 1 and β = 0 in batch norms; the last fully connected layer from
    N(0, 0.01²). Other layers, which the paper's networks do not have, stay as they are.
    """
    head = head_layers(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module not in head:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, _BatchNorm) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif module in head and isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def restore_gammas(model: nn.Module) -> None:
    """Set γ = 1 in batch norms in which a library has set γ = 0: whether it does is a setting."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine and not module.weight.any():
            nn.init.ones_(module.weight)
