"""Horovod sums gradients during backprop, on one device: the weights are those of plain SGD.

The same test on a CPU and on a GPU, and two ranks on one GPU where NCCL allows that.
"""

from __future__ import annotations

import ctypes
import json

import pytest
from support.launching import PROGRAMS, TINY, launch, train

from hvd_utils.inspect.compare import differences, newest

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
TO_THE_BIT = ("buckets", "no buckets", "channels first")
ROUNDING = {"fp16": 2**-11, "bf16": 2**-8}  # of one gradient, relative
SHARED = 23000  # the NCCL that first lets two ranks share a GPU: 2.30


def sums_of_one(device, *cases, timeout=120):
    program = str(PROGRAMS / "sums_of_one.py")
    ended = launch([program, device, *cases], by="python", timeout=timeout)
    assert ended.code == 0, ended.output
    line = next(line for line in ended.output.splitlines() if line.startswith("{"))
    found = json.loads(line)
    assert list(found) == list(cases)
    return found


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_summed_gradients_make_the_weights_of_plain_sgd(device):
    """To the bit; in 16 bits but for their rounding, which is there."""
    found = sums_of_one(device, *TO_THE_BIT, *ROUNDING)
    assert {found[case] for case in TO_THE_BIT} == {0.0}
    for case, bound in ROUNDING.items():
        assert 0 < found[case] < bound


@pytest.mark.long
@pytest.mark.parametrize(
    ("device", "cases"),
    [
        pytest.param("cpu", ["compiled"], id="cpu"),
        pytest.param("cuda", ["compiled", "CUDA graphs"], marks=pytest.mark.gpu, id="cuda"),
    ],
)
def test_compiled_passes_make_the_weights_of_plain_sgd(device, cases):
    assert set(sums_of_one(device, *cases, timeout=400).values()) == {0.0}


@pytest.mark.gpu
def test_two_ranks_on_one_gpu_make_the_run_of_one(tiny_data, tmp_path):
    """Sums over two ranks by NCCL, hidden behind the backward pass."""
    nccl = ctypes.c_int()  # of the library: PyTorch tells which it was built with
    ctypes.CDLL("libnccl.so.2").ncclGetVersion(ctypes.byref(nccl))
    if nccl.value < SHARED:
        pytest.skip(f"NCCL {nccl.value} lets no two ranks share a GPU, {SHARED} does")
    shared = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "CUDA_VISIBLE_DEVICES": "0"}
    ends = []
    for ranks, options in ((1, {"by": "python"}), (2, {"ranks": 2, **shared})):
        run = tmp_path / str(ranks)
        arguments = ("--workers", 4, "--precision", "fp64", "--device", "cuda", "--output", run)
        ended = train("--data", tiny_data, *arguments, *TINY, **options)
        assert ended.code == 0, ended.output
        ends.append(newest(run))
    assert max(differences(*ends).values()) < 1e-8
