"""The files that weights leave in: torchvision's state dicts, safetensors and ONNX."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.files import cannot_write, replace_text
from hvd_utils.networks.library import CLASSIFIERS
from hvd_utils.weights.trained import Trained

INPUT, OUTPUT = "images", "logits"  # of an ONNX graph


def write(trained: Trained, form: str, output: Path) -> None:
    """Write ``trained`` to ``output`` in the format ``form``, one of ``WRITERS``.

    Under a temporary name first, so that an interruption leaves the old file or the new one.
    Raises BadInput where the format cannot hold this network or the file cannot be written.
    """
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        WRITERS[form](trained, temporary)
        os.replace(temporary, output)
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    if form == "torchvision":  # a state dict has no room for anything else
        replace_text(output.with_suffix(".json"), json.dumps(trained.facts(), indent=1) + "\n")


def texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return facts as the texts that safetensors and ONNX keep: JSON, but for plain words."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
    }


def _torchvision(trained: Trained, path: Path) -> None:
    name = trained.recipe.model
    if name.removeprefix("torchvision/") not in CLASSIFIERS:
        raise BadInput(f"{name} is no network of torchvision: export it --to safetensors or onnx")
    with path.open("wb") as file:  # whose errors are the system's, not PyTorch's
        torch.save(dict(trained.weights), file)


def _safetensors(trained: Trained, path: Path) -> None:
    from safetensors.torch import save

    # Its own writer of files leaves them readable by their owner alone.
    path.write_bytes(save(dict(trained.weights), metadata=texts(trained.facts())))


def _onnx(trained: Trained, path: Path) -> None:
    """Write a graph from images, float32 (batch, 3, side, side), to logits (batch, classes)."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"--to onnx needs onnx and onnxscript ({error}): pip install onnx onnxscript"
        ) from error
    facts = trained.facts()
    side = facts["crop_side"]
    program = torch.onnx.export(
        trained.model(),
        (torch.zeros(2, 3, side, side),),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    program.model.metadata_props.update(texts(facts))
    program.save(path, external_data=False)


WRITERS: dict[str, Callable[[Trained, Path], None]] = {
    "torchvision": _torchvision,
    "safetensors": _safetensors,
    "onnx": _onnx,
}
