"""Classification networks of torchvision and timm, all built in one way.

What they are made of is found by module type and by the libraries' own methods, never by the name
of a network.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import SMALL_RESNETS

CLASSIFIERS = tuple(torchvision.models.list_models(module=torchvision.models))

# Arguments of torchvision's networks whose layers depend on the images' side.
SIDE_OF = {"vit_": "image_size", "maxvit_": "input_size"}
# Without heads in the middle; they warn where it is not said whether they are to be initialised.
ONE_HEAD = {"aux_logits": False, "init_weights": True}
ONE_HEAD_OF = ("googlenet", "inception_v3")


def build(name: str, num_classes: int, sides: Sequence[int] = ()) -> nn.Module:
    """Return ``timm/NAME``, or a network of torchvision, as its library initialises it.

    ``sides`` are those of its images, pixels, that of training first; none: as the library has it.
    Raises BadInput for an unknown name, a network that keeps statistics of images outside of batch
    norms, and one that does not take such images.
    """
    library, _, short = name.rpartition("/")
    if library == "timm":
        model = _timm(short, num_classes, sides)
    elif library in ("", "torchvision") and short in CLASSIFIERS:
        model = _torchvision(short, num_classes, sides)
    else:
        raise unknown(name, [*SMALL_RESNETS, *CLASSIFIERS])
    refuse_other_statistics(model, name)
    for side in sorted(set(sides)):
        check_side(model, name, num_classes, side)
    return model


def unknown(name: str, names: Sequence[str]) -> BadInput:
    """Return the failure for a model that is not known."""
    close = difflib.get_close_matches(name.rpartition("/")[2], names, n=3)
    mean = f"did you mean {' or '.join(close)}? " if close else ""
    return BadInput(
        f"no model {name}: {mean}--model takes {', '.join(SMALL_RESNETS)}, a classification "
        "network of torchvision, as resnet50, or timm/NAME"
    )


def _timm(name: str, num_classes: int, sides: Sequence[int]) -> nn.Module:
    import timm  # takes a second or two

    if not timm.is_model(name):
        raise unknown(f"timm/{name}", timm.list_models())
    published = timm.get_pretrained_cfg(name)
    sized = sides and published is not None and published.fixed_input_size
    arguments: dict[str, Any] = {"img_size": sides[0]} if sized else {}
    return _made(f"timm/{name}", timm.create_model, name, num_classes=num_classes, **arguments)


def _torchvision(name: str, num_classes: int, sides: Sequence[int]) -> nn.Module:
    arguments: dict[str, Any] = ONE_HEAD.copy() if name in ONE_HEAD_OF else {}
    for start, argument in SIDE_OF.items():
        if name.startswith(start) and sides:
            arguments[argument] = sides[0] if argument == "image_size" else (sides[0], sides[0])
    make = torchvision.models.get_model
    return _made(name, make, name, weights=None, num_classes=num_classes, **arguments)


def _made(name: str, make: Any, *arguments: Any, **options: Any) -> nn.Module:
    try:
        return make(*arguments, **options)
    except Exception as error:  # each network has its own way to refuse a size
        reason = " ".join(str(error).split())[:150]
        raise BadInput(
            f"--model {name} cannot be made ({reason}): set --resolution or choose another --model"
        ) from error


def check_side(model: nn.Module, name: str, num_classes: int, side: int) -> None:
    """Raise BadInput unless the model makes logits of an image of side × side pixels."""
    if next(model.parameters()).is_meta:
        return
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(torch.zeros(1, 3, side, side)).shape)
    except Exception as error:  # each network has its own way to refuse a size
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise BadInput(
            f"--model {name} takes no images of {side} × {side} pixels ({reason}): set "
            "--resolution, --val-resolution and --val-resize to its size"
        ) from error
    model.train()
    if shape != (1, num_classes):
        raise BadInput(f"--model {name} is no classifier: of an image it makes {shape}")


def refuse_other_statistics(model: nn.Module, name: str) -> None:
    """Raise BadInput if anything but a batch norm follows the images.

    Only batch norms' running averages are made of all workers' images. Batch norms of other kinds
    than PyTorch's mix the workers of a pass, or of all processes.
    """
    for place, module in model.named_modules():
        keeps = any(hasattr(module, which) for which in ("running_mean", "running_var"))
        if isinstance(module, nn.SyncBatchNorm) or (keeps and not isinstance(module, _BatchNorm)):
            raise BadInput(
                f"--model {name} mixes the workers' images in {type(module).__name__} '{place}': "
                "choose another --model"
            )


def zero_last_gammas(model: nn.Module) -> None:
    """Set γ = 0 where a residual block's branch ends (section 5.1), as the model's library does.

    torchvision does so by ``zero_init_residual``, in the blocks of its ResNets alone; timm by its
    blocks' own ``zero_init_last``. Networks of other blocks have no such way: γ stays at 1.
    """
    for module in model.modules():
        last = last_batch_norm(module)
        if last is not None:
            nn.init.zeros_(last.weight)
            continue
        zero, again = (getattr(module, name, None) for name in ("zero_init_last", "init_weights"))
        if callable(zero):
            zero()
        elif module is not model and callable(again) and "zero_init_last" in _parameters(again):
            again(zero_init_last=True)


def _parameters(method: Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(method).parameters


def last_batch_norm(block: nn.Module) -> _BatchNorm | None:
    """Return the batch norm that ends a block of torchvision's ResNets; None if it is no such."""
    if isinstance(block, Bottleneck):
        return block.bn3
    if isinstance(block, BasicBlock):
        return block.bn2
    return None
