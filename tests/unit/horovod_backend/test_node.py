"""A GPU that nobody uses is noticed, and one that is hidden on purpose is not."""

import pytest
import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.horovod_backend import world
from hvd_utils.horovod_backend.node import DRIVER, unused_gpu

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\n"


@pytest.fixture
def node(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / DRIVER).parent.mkdir(parents=True)
    return tmp_path


def test_the_driver_or_the_device_tells_of_a_gpu(node):
    assert unused_gpu(node, {}) is None
    (node / "dev" / "nvidia0").touch()
    assert unused_gpu(node, {}) == "/dev/nvidia0, without a driver"
    (node / DRIVER).write_text(VERSION)
    assert unused_gpu(node, {}) == "driver 535.104.05"
    assert unused_gpu(node, {"CUDA_VISIBLE_DEVICES": "0"}) == "driver 535.104.05"
    (node / DRIVER).write_text("?")
    assert unused_gpu(node, {}) == "a driver of unknown version"


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_gpus_may_be_hidden(node, hidden):
    (node / DRIVER).write_text(VERSION)
    assert unused_gpu(node, {"CUDA_VISIBLE_DEVICES": hidden}) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch sees a GPU here")
def test_auto_does_not_train_on_the_cpu_of_a_node_with_a_gpu(monkeypatch):
    monkeypatch.setattr(world, "unused_gpu", lambda *_: "driver 535.104.05")
    told = r"GPU \(driver 535.104.05\) that PyTorch \S+ does not see .*\(.+\): .*--device cpu"
    for device in ("auto", "cuda"):
        with pytest.raises(BadInput, match=told):
            world._choose_device(device, 0, 1)
    assert world._choose_device("cpu", 0, 1).type == "cpu"
    monkeypatch.setattr(world, "unused_gpu", lambda *_: None)
    assert world._choose_device("auto", 0, 1).type == "cpu"
