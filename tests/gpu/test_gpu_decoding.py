"""Decoding on a GPU: its pixels, in batches of any size and order, and how batches are held."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from support.launching import TINY, train
from support.loaders import GROWING, SETTINGS, images_by_worker

from dali_pipeline.benchmarking.jpegs import make_jpegs
from dali_pipeline.dataset.scan import scan_splits
from dali_pipeline.loading.decoding.by_dali import ByDali
from dali_pipeline.loading.decoding.crops import planned_crops
from dali_pipeline.loading.decoding.probe import DECODERS, probe
from dali_pipeline.loading.decoding.verdict import WAYS, describe
from dali_pipeline.loading.interface import STD
from dali_pipeline.loading.loader import make_loader
from dali_pipeline.sampling.plan import Plan
from hvd_utils.paper.logical_workers import passes

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """256 crops of made-up JPEGs of ImageNet's sizes, and their index."""
    folder = tmp_path_factory.mktemp("jpegs")
    make_jpegs(folder, 256, 8)
    splits = scan_splits(folder)
    return splits, planned_crops(splits, SETTINGS)


@pytest.fixture(scope="module")
def verdicts(crops):
    """What the probe finds of each way of decoding on this GPU; each in a child process."""
    found = probe(crops[1], DECODERS, 0, threads=4)
    print(describe("cpu", [("here", found)]))
    return found


@pytest.fixture(params=WAYS)
def way(request, verdicts):
    """Each way of decoding that works here; the reason why the others do not."""
    if not verdicts[request.param].passed:
        pytest.skip(f"--decode {request.param} fails here: {verdicts[request.param].reason}")
    return request.param


def test_the_probe_passes_or_says_which_way_failed(verdicts):
    """Decoding by the CPU has to work. ``-rs`` shows why another way does not."""
    assert verdicts["cpu"].passed, verdicts["cpu"].reason
    assert set(verdicts) == set(WAYS)
    assert all(verdict.rate > 0 for verdict in verdicts.values() if verdict.passed)


@pytest.mark.parametrize("whole", [False, True], ids=["crops", "whole"])
def test_an_image_is_the_same_in_any_batch_and_order(crops, way, whole):
    """Else its pixels would depend on the number of processes and on --fuse-workers."""
    decoder = ByDali(way, 0, threads=4)
    made, turned = decoder.images(crops[1], 256, whole), crops[1].part(slice(None, None, -1))
    assert np.array_equal(made, decoder.images(crops[1], 32, whole))
    assert np.array_equal(made, decoder.images(turned, 256, whole)[::-1])
    assert np.array_equal(made, decoder.images(turned, 32, whole)[::-1])


def test_the_loader_delivers_the_same_pixels_in_one_large_batch_or_several(crops, way):
    settings = SETTINGS.model_copy(
        update={"workers": 8, "batch_per_worker": 32, "resolution": 224, "decode": way}
    )
    plans = [Plan(*crops[0], settings, passes(range(8), fuse), 0, 1) for fuse in (1, 8)]
    made = [images_by_worker(plan, torch.device("cuda", 0), threads=4) for plan in plans]
    assert torch.equal(*made)


def test_the_job_decodes_by_what_passed(tiny_data, tmp_path, way):
    options = ("--device", "cuda", "--decode", way, *TINY)
    ended = train("--data", tiny_data, "--output", tmp_path, *options, by="python", timeout=300)
    assert ended.code == 0, ended.output
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["decode"] == way


def load(data, device, changes):
    settings = SETTINGS.model_copy(update=changes)
    plan = Plan(*scan_splits(data), settings, [range(1), range(1, 2)], 0, 1)
    loader = make_loader("dali", plan, device=torch.device(device), threads=2)
    return list(loader.training(0, 9)), list(loader.validation())


AUGMENTED = {"augment": "trivial", "erase": 0.5, "mixup": 0.2, "cutmix": 1.0}


@pytest.mark.parametrize(
    "changes", [{}, GROWING, AUGMENTED], ids=["one side", "growing", "augmented"]
)
def test_dali_makes_on_the_gpu_what_it_makes_on_the_cpu(tiny_data, changes, way):
    """nvJPEG rounds otherwise than libjpeg-turbo; in units of 0 to 255."""
    deviation = torch.tensor(STD).view(3, 1, 1) * 255
    changes = {**changes, "decode": way}
    made = (load(tiny_data, device, changes) for device in ("cuda:0", "cpu"))
    for gpu, cpu in zip(*made, strict=True):
        for (images, labels), (expected, expected_labels) in zip(gpu, cpu, strict=True):
            assert images.device.type == labels.device.type == "cuda"
            assert torch.allclose(labels.cpu(), expected_labels)
            difference = ((images.cpu() - expected) * deviation).abs()
            assert difference.mean() < 2.0


def test_batches_stay_whole_until_a_gpu_that_lags_has_read_them(tiny_data):
    """They lie in DALI's memory, and the host is done with them long before."""
    settings = SETTINGS.model_copy(update={"prefetch": 1})
    plan = Plan(*scan_splits(tiny_data), settings, [range(1), range(1, 2)], 0, 1)
    loader = make_loader("dali", plan, device=torch.device("cuda", 0), threads=2)
    matrix, sums = torch.ones(8192, 8192, device="cuda"), []
    for products in (0, 40):
        read = []
        for images, _ in loader.training(0, 9):
            for _ in range(products):
                matrix @ matrix
            read.append(images.double().sum())
            if not products:  # what is expected
                torch.cuda.synchronize()
            del images
        sums.append(torch.stack(read).cpu())
    assert torch.equal(*sums)
