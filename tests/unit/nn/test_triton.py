"""Triton's kernels where there is no GPU: interpreted, and compiled for GPUs that are not here."""

from __future__ import annotations

import pytest
import torch
from support.launching import REPOSITORY, launch

pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from hvd_utils.nn import triton_batch_norm, triton_kernels


@pytest.mark.long
def test_interpreted_they_pass_the_tests_of_the_gpu():
    """In a process of their own: Triton decides when it is imported."""
    command = ["-m", "pytest", "-q", "tests/gpu/test_triton_batch_norm.py"]
    ended = launch(
        command, by="python", timeout=500, quick=False, cwd=REPOSITORY,
        TRITON_INTERPRET="1", PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert ended.code == 0, ended.output
    assert " passed" in ended.output
    assert " skipped" not in ended.output


class OnlyCompiled:
    """A kernel that is compiled for a GPU as it would be launched, and not launched."""

    def __init__(self, kernel, capability):
        self.kernel, self.capability = kernel, capability
        self.compiled = []

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *given, **options):
        signature, constants = {}, {}
        for place, (value, parameter) in enumerate(zip(given, self.kernel.params, strict=True)):
            if parameter.is_constexpr or value is None:
                kind = "constexpr"
                constants[place,] = value
            elif isinstance(value, torch.Tensor):
                kind = {2: "*bf16", 4: "*fp32", 8: "*fp64"}[value.element_size()]
            else:
                assert isinstance(value, int)
                kind = "i32"
            signature[parameter.name] = kind
        source = ASTSource(self.kernel, signature, constants)
        target = GPUTarget("cuda", self.capability, 32)
        self.compiled.append(compile(source, target=target, options=options).asm["cubin"])


@pytest.mark.parametrize(
    ("capability", "dtype"), [(80, torch.bfloat16), (90, torch.float32), (90, torch.float64)],
    ids=str,
)  # fmt: skip
def test_they_compile_for_an_a100_and_an_h100(capability, dtype, monkeypatch, tmp_path):
    """The interpreter takes more of Python than the compiler does."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = {}
    for name in ("moments", "statistics_of_parts", "normalise", "gradient_sums", "sums_of_parts",
                 "images_gradient"):  # fmt: skip
        kernels[name] = OnlyCompiled(getattr(triton_kernels, name), capability)
        monkeypatch.setattr(triton_kernels, name, kernels[name])
    images = torch.zeros(6, 64, 5, 3, dtype=dtype)
    affine = 2 * [torch.ones(64, dtype=torch.promote_types(dtype, torch.float32))]
    for shortcut, relu in ((None, False), (None, True), (images, True)):
        output, statistics = triton_batch_norm.forward(images, shortcut, *affine, 2, 1e-5, relu)
        output = output if shortcut is not None else None
        triton_batch_norm.backward(images, images, output, *affine, statistics, relu)
    assert all(len(kernel.compiled) == 3 and all(kernel.compiled) for kernel in kernels.values())
