"""Choose the loader of a run: ``dali`` (first batches checked), ``torchvision``, ``synthetic``."""

from __future__ import annotations

import torch

from dali_pipeline.loading.interface import Loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.imports import quick_imports


def make_loader(kind: str, plan: Plan, *, device: torch.device, threads: int) -> Loader:
    """Return the loader named ``kind``, which carries out ``plan`` with ``threads`` CPU threads."""
    loader = _make(kind, plan, device, threads)
    if plan.settings.mixup or plan.settings.cutmix:
        from dali_pipeline.loading.mixed import MixedLoader

        return MixedLoader(loader, plan)
    return loader


def _make(kind: str, plan: Plan, device: torch.device, threads: int) -> Loader:
    # Imported here: each library takes seconds to load, and a run needs one of them.
    if kind == "synthetic":
        from dali_pipeline.loading.synthetic import SyntheticLoader

        return SyntheticLoader(plan, device)
    if kind == "torchvision":
        from dali_pipeline.loading.torchvision_loader import TorchvisionLoader

        return TorchvisionLoader(plan, device, threads)
    with quick_imports():
        from dali_pipeline.loading.dali.loader import DaliLoader
        from dali_pipeline.loading.self_check import CheckedLoader
    return CheckedLoader(DaliLoader(plan, device, threads), plan)
