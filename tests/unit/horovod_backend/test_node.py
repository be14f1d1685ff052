"""A node's GPUs: which is a process's own, and one that nobody uses is noticed."""

import os

import pytest
import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.horovod_backend import node as module
from hvd_utils.horovod_backend import world
from hvd_utils.horovod_backend.node import (
    DRIVER,
    gpu_index,
    own_gpu_first,
    own_gpu_index,
    require_own_gpus,
    see_own_gpu_first,
    unused_gpu,
)

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


@pytest.mark.parametrize(
    ("visible", "local_rank", "ordered"),
    [
        ("0,1,2,3", 2, "2,0,1,3"),
        ("7,6,5,4", 3, "4,7,6,5"),
        (" 0, 2", 1, "2,0"),
        ("GPU-8a1f,GPU-31c2", 1, "GPU-31c2,GPU-8a1f"),
        ("MIG-01,MIG-02,MIG-03", 1, "MIG-02,MIG-01,MIG-03"),
        ("3", 1, None),  # a scheduler shows each task its own
        ("0,1", 2, None),  # too few, which is told later
        ("0,-1,1", 1, None),  # CUDA ends at -1
        ("0,1,-1,2", 1, "1,0"),
        ("-1", 1, None),
        ("NoDevFiles", 1, None),
        ("", 1, None),
    ],
)
def test_the_own_gpu_comes_first_and_all_stay_visible(visible, local_rank, ordered):
    assert own_gpu_first(visible, local_rank) == ordered


def test_whichever_gpu_comes_first_a_local_rank_has_its_own():
    """Also where the launcher's variable named another local rank than Horovod."""
    for first in range(8):
        visible = own_gpu_first("a,b,c,d,e,f,g,h", first).split(",")
        own = [visible[gpu_index(local_rank, 8, 8, first)] for local_rank in range(8)]
        assert own == [*"abcdefgh"]


@pytest.fixture
def environment(monkeypatch):
    """This process's variables and order of GPUs, which are as before afterwards."""
    monkeypatch.setattr(module, "_first", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    return os.environ


def test_without_a_schedulers_word_all_gpus_are_ordered_that_can_be_opened(node, environment):
    for name in ("nvidia0", "nvidia2", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (node / "dev" / name).touch()
    (node / "dev" / "nvidia6").symlink_to("nowhere")  # as one that a cgroup keeps from us
    see_own_gpu_first(2, node)
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,0,1"
    assert [own_gpu_index(local_rank, 3, 3) for local_rank in range(3)] == [1, 2, 0]
    with pytest.raises(BadInput, match="4 processes but 3 GPUs"):
        own_gpu_index(2, 4, 3)


@pytest.mark.parametrize("local_rank", [None, 0, 1, 3])
def test_where_there_is_nothing_to_order_nothing_changes(node, environment, local_rank):
    (node / "dev" / "nvidia0").touch()
    see_own_gpu_first(local_rank, node)
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert own_gpu_index(1, 4, 4) == 1


def test_a_second_call_leaves_each_rank_its_gpu(node, environment):
    """It would take the second number behind the own one."""
    environment["CUDA_VISIBLE_DEVICES"] = "4,5,6"
    for _ in range(2):
        see_own_gpu_first(2, node)
        assert environment["CUDA_VISIBLE_DEVICES"] == "6,4,5"
        assert own_gpu_index(2, 3, 3) == 0


def test_two_processes_on_one_gpu_are_told_before_nccl_refuses_them():
    """As of ``horovodrun -np 2`` on a workstation; a scheduler may show each its own as the one."""
    apart = [("a", "0000:01:00.0"), ("b", "0000:01:00.0"), ("a", "0000:02:00.0")]
    require_own_gpus(apart, {})
    require_own_gpus([("a", None)] * 2, {})  # a PyTorch that does not know
    shared = [*apart, ("a", "0000:02:00.0")]
    with pytest.raises(
        BadInput, match=r"2 processes share one GPU of a \(0000:02:00.0\): start one"
    ):
        require_own_gpus(shared, {})
    require_own_gpus(shared, {"NCCL_MULTI_RANK_GPU_ENABLE": "1"})


def test_the_job_looks_whether_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(world, "_choose_device", lambda *_: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(world.affinity, "pci_address", lambda device: "0000:01:00.0")
    monkeypatch.setattr(world.World, "gather", lambda self, value: [value, value])
    with pytest.raises(BadInput, match="2 processes share one GPU"):
        world.start_world("auto")
