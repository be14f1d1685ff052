"""Where weights to start from come from: a run, a checkpoint, a file, or a library's hub."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.inspect.compare import newest_file
from hvd_utils.weights.hub import HUBS, from_hub

Weights = dict[str, torch.Tensor]

# Where a training script keeps its weights in a file, the averaged ones first: this project's,
# torchvision's and timm's names.
INSIDE = ("averaged", "model_ema", "state_dict_ema", "model", "state_dict")
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel, AveragedModel and torch.compile


def read_weights(source: str, flag: str = "--init") -> Weights:
    """Return the weights that ``flag`` names, on the CPU; pickled code is refused.

    Raises BadInput where there are none, or they are damaged.
    """
    path = Path(source)
    if path.exists():
        weights = _read_file(newest_file(path), flag)
    elif source.startswith(HUBS):
        weights = from_hub(source)
    else:
        raise BadInput(
            f"no weights {source}: {flag} takes a run, a checkpoint, a .pth, .pt or .safetensors "
            "file, timm/NAME or torchvision/NAME"
        )
    return {_unwrapped(name): value for name, value in weights.items()}


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return a checksum of names, shapes and values, whichever file they came from."""
    checksum = sha256()
    for name in sorted(weights):
        value = weights[name].cpu().contiguous()
        checksum.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        checksum.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{checksum.hexdigest()[:16]}"


def _read_file(path: Path, flag: str) -> Weights:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = _read_pickle(path)
    except OSError as error:
        raise BadInput(f"cannot read {flag} {path}: {error.strerror or error}") from error
    except Exception as error:  # PyTorch and safetensors raise many kinds on damaged bytes
        raise BadInput(
            f"{flag} {path} is damaged, or holds more than tensors: give a state dict"
        ) from error
    found = next((content[name] for name in INSIDE if content.get(name)), content)
    if not found or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BadInput(f"{flag} {path} holds no state dict: give one, a run or a checkpoint")
    return dict(found)


def _read_pickle(path: Path) -> dict[str, Any]:
    if zipfile.is_zipfile(path):  # PyTorch writes checksums but does not read them
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                raise zipfile.BadZipFile
    with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts' arguments
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise TypeError
    return content


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name
