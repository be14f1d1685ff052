"""A loader that delivers wrong images or labels is found in its first batches."""

import pytest
import torch
from PIL import Image
from support.images import write_jpegs

from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.dali.loader import DaliLoader
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.loading.self_check import CHECKED_PASSES, CheckedLoader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.paper.logical_workers import passes

CPU = torch.device("cpu")


def plan_for(data, **changes):
    settings = Settings(
        recipe="demo", workers=2, batch_per_worker=8, resolution=32, val_resize=36, **changes
    )
    return Plan(*scan_splits(data), settings, passes(range(2), 1), 0, 1)


class Broken:
    """The DALI loader, with something wrong in every batch that it delivers."""

    def __init__(self, plan, wrong):
        self._loader, self._wrong = DaliLoader(plan, CPU, 1), wrong

    def training(self, first, last):
        yield from map(self._wrong, self._loader.training(first, last))

    def validation(self):
        yield from map(self._wrong, self._loader.validation())


WRONG = {
    "noise": lambda images, labels: (torch.randn_like(images), labels),
    "another order": lambda images, labels: (images.flip(0), labels),
    "mirrored": lambda images, labels: (images.flip(3), labels),
    "BGR": lambda images, labels: (images.flip(1), labels),
    "transposed": lambda images, labels: (images.transpose(2, 3), labels),
    "not normalised": lambda images, labels: (images * 58 + 116, labels),
    "not a number": lambda images, labels: (images * float("nan"), labels),
    "black": lambda images, labels: (torch.full_like(images, -2.0), labels),
    "labels": lambda images, labels: (images, (labels + 1) % 3),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_broken_loader_is_caught(tiny_data, wrong, part):
    plan = plan_for(tiny_data)
    loader = CheckedLoader(Broken(plan, lambda batch: WRONG[wrong](*batch)), plan)
    batches = loader.training(0, 3) if part == "training" else loader.validation()
    with pytest.raises(BadInput, match=r"wrong images|labels.*--loader torchvision"):
        list(batches)


def test_a_job_has_the_loader_that_checks_itself(tiny_data, monkeypatch):
    """A decoder that is wrong on this machine ends the job in its first step."""

    def broken(loader, first, last):
        for images, labels in batches(loader, first, last):
            yield images.flip(3), labels

    batches = DaliLoader.training
    monkeypatch.setattr(DaliLoader, "training", broken)
    loader = make_loader("dali", plan_for(tiny_data), device=CPU, threads=1)
    with pytest.raises(BadInput, match="wrong images"):
        list(loader.training(0, 1))


def test_memory_that_is_used_again_too_early_is_caught(tiny_data):
    """As with Python 3.14: right when it is delivered, wrong when the model has read it."""
    plan = plan_for(tiny_data)
    batches = CheckedLoader(DaliLoader(plan, CPU, 1), plan).training(0, 3)
    images, _ = next(batches)
    images.fill_(0.5)
    with pytest.raises(BadInput, match=r"step 1: .*wrong images.*Python 3"):
        next(batches)


def test_batches_in_use_are_never_overwritten(tiny_data):
    """The whole way: batches are made ahead, read late, and each is still what was planned."""
    plan = plan_for(tiny_data)
    loader = CheckedLoader(DaliLoader(plan, CPU, 2), plan)
    assert len(list(loader.training(0, 12))) == 24
    assert len(list(loader.validation())) == len(list(loader.validation())) == 1


@pytest.mark.parametrize("changes", [{"antialias": False}, {"min_crop_area": 0.5}, {"flip": False}])
def test_sound_batches_pass_whatever_the_settings(tiny_data, changes):
    plan = plan_for(tiny_data, **changes)
    loader = CheckedLoader(DaliLoader(plan, CPU, 1), plan)
    assert len(list(loader.training(0, CHECKED_PASSES))) == 2 * CHECKED_PASSES
    assert len(list(loader.validation())) == 1


def test_a_few_odd_images_do_not_end_a_run(tmp_path):
    """CMYK, which decoders show differently, in a fifth of the images."""
    for split, count in (("train", 30), ("val", 10)):
        write_jpegs(tmp_path / split, {"ant": count, "bee": count}, seed=3)
    for path in sorted(tmp_path.rglob("*.JPEG"))[::5]:
        Image.open(path).convert("CMYK").save(path)
    plan = plan_for(tmp_path)
    loader = CheckedLoader(DaliLoader(plan, CPU, 1), plan)
    assert len(list(loader.training(0, 3))) == 6
    assert len(list(loader.validation())) == 1
