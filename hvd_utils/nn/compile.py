"""``torch.compile``, stage by stage, so that allreduce still overlaps with backprop.

Compiled as one, a model returns all its gradients at the end of the backward pass, and Horovod
could begin only then. A break in the graph before each stage makes the backward pass several
functions, each of which returns its gradients when it is done.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import SpeedSettings
from hvd_utils.nn.kernel_choice import choose_batch_norm
from hvd_utils.nn.memory_format import default_channels_last, pad_stem, set_memory_format

SHAPES = 64  # that a model may be compiled for; PyTorch leaves the ninth uncompiled
MODES = {"default": None, "cudagraphs": "reduce-overhead"}  # of --compile, as PyTorch calls them


def tune_model(
    model: nn.Module,
    settings: SpeedSettings,
    device: torch.device,
    gather: Callable[[Any], list[Any]] = lambda value: [value],
) -> None:
    """Apply the settings of memory format, kernels and compilation, in place; collective.

    ``gather`` returns every rank's value on every rank, for what all have to choose alike.
    """
    channels_last = settings.channels_last
    if channels_last is None:
        channels_last = default_channels_last(settings.precision, device)
    set_memory_format(model, channels_last=channels_last)
    if settings.pad_stem:
        pad_stem(model)
    choose_batch_norm(
        model, settings.batch_norm, device, channels_last=channels_last, gather=gather
    )
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    torch.backends.cudnn.deterministic = not settings.cudnn_benchmark
    if settings.compile != "none":
        compile_stages(model, settings.compile)


def compile_stages(model: nn.Module, mode: str) -> None:
    """Have the model compiled in place when it is first called; see ``MODES``.

    Raises BadInput where there is no C++ compiler, which PyTorch needs on every device.
    """
    compiler = (sysconfig.get_config_var("CXX") or "g++").split()[0]
    if not any(map(shutil.which, (compiler, "g++", "clang++"))):
        raise BadInput("--compile needs a C++ compiler: install g++, or set --compile none")
    # One for each shape of images: sizes that grow, and a process's passes of unequal size.
    torch._dynamo.config.recompile_limit = SHAPES
    for stage in stages(model)[1:]:
        stage.register_forward_pre_hook(_break_graph)
    model.compile(mode=MODES[mode], dynamic=False)


def is_compiled(model: nn.Module) -> bool:
    """Return whether ``compile_stages`` was applied to the model."""
    return model._compiled_call_impl is not None


def stages(model: nn.Module) -> list[nn.Module]:
    """Return the model's sequences of residual blocks, in the order of the forward pass."""
    return [
        module
        for module in model.children()
        if isinstance(module, nn.Sequential) and any(map(_is_block, module))
    ]


def _is_block(module: nn.Module) -> bool:
    from torchvision.models.resnet import BasicBlock, Bottleneck

    return isinstance(module, BasicBlock | Bottleneck)


def _break_graph(module: nn.Module, inputs: tuple) -> None:
    torch._dynamo.graph_break()


def skipped_graphs() -> int:
    """Return how many of this process's CUDA graphs PyTorch has given up, which it does silently.

    As of functions that change their inputs, or that were recorded 128 times: see
    torch/_inductor/cudagraph_utils.py.
    """
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


@contextmanager
def unsearched() -> Iterator[None]:
    """Run a context without cuDNN's search for the quickest kernels: for shapes seen once.

    A search takes seconds for a model at each new shape, as a validation's last batch.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def uncompiled() -> AbstractContextManager:
    """Return a context in which models run as if they were not compiled: for shapes seen once."""
    return torch.compiler.set_stance("force_eager")
