"""Blocks of gradients are zeros, aligned to huge pages, and the kernel is asked for these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hvd_utils.nn.cpu import HUGE_PAGE, compute_on, huge_zeros


@pytest.mark.parametrize("elements", [1, HUGE_PAGE // 4, 3_000_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_huge_zeros_begin_a_huge_page_and_can_be_written(elements, dtype):
    zeros = huge_zeros(elements, dtype)
    assert (zeros.shape, zeros.dtype) == ((elements,), dtype)
    assert not zeros.any()
    assert zeros.data_ptr() % HUGE_PAGE == 0
    zeros += 1
    assert zeros[0] == zeros[-1] == 1


def test_huge_pages_are_asked_for():
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no transparent huge pages")
    zeros = huge_zeros(1, torch.float32)
    assert "hg" in _flags_of_memory(zeros.data_ptr())


def _flags_of_memory(address: int) -> list[str]:
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):  # 7f0000000000-7f0000200000 rw-p ...
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            return rest
    raise AssertionError("no memory at this address")


@pytest.mark.parametrize(
    ("told", "threads"), [(None, 3), ("", 3), ("abc", 3), ("0", 3), ("2", 1), (" 4,2", 1)]
)
def test_it_computes_on_so_many_cores_unless_it_is_told(monkeypatch, told, threads):
    if told is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as PyTorch itself would have read it
        compute_on(3)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
