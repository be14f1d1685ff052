"""Which CUDA is set up, and which toolkit and NCCL Horovod is built with, in made-up folders."""

from __future__ import annotations

from pathlib import Path

import choose_cuda
import cuda_toolkit
import host_compiler
import pytest
from step import Failure

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 19 2023\n"


@pytest.fixture
def root(tmp_path):
    """A machine with NVIDIA's driver, as a function of its version."""

    def make(driver: str) -> Path:
        told = tmp_path / cuda_toolkit.DRIVER
        told.parent.mkdir(parents=True)
        told.write_text(VERSION.format(driver))
        return tmp_path

    return make


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without a GPU, where nothing is asked for and no toolkit lies about."""
    for name in ("CUDA", "CUDA_HOME", "CUDA_PATH", "HOROVOD_WITHOUT_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cuda_toolkit, "has_gpu", lambda *_: False)
    monkeypatch.setattr(cuda_toolkit, "folders", lambda environment: [])
    return tmp_path


def toolkit(home: Path, version: str) -> Path:
    for name in ("bin/nvcc", "include/cuda_runtime.h"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(f"#!/bin/sh\necho Cuda compilation tools, release {version}, V\n")
    (home / "bin/nvcc").chmod(0o755)
    return home


def limit(home: Path, gcc: int) -> Path:
    """As in the header of CUDA 13.0."""
    header = home / "include/crt/host_config.h"
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(
        f"#if defined(__GNUC__)\n\n#if __GNUC__ > {gcc}\n\n#error -- unsupported GNU version!\n"
    )
    return home


def compiler(folder: Path, *macros: str) -> str:
    """A compiler that defines these macros."""
    path = folder / "some-g++"
    path.write_text("#!/bin/sh\n" + "".join(f"echo '#define {macro}'\n" for macro in macros))
    path.chmod(0o755)
    return str(path)


def nccl(folder: Path, major: int, library: str = "lib/libnccl.so.2") -> Path:
    for name in ("include/nccl.h", library):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(f"#define NCCL_MAJOR {major}\n")
    return folder


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [(None, 13), ("525.60.13", 12), ("535.104.05", 12), ("570.86", 12), ("580.65.06", 13)],
)
def test_the_driver_decides(driver, cuda):
    assert choose_cuda.choose(driver) == cuda


def test_an_older_driver_is_one_line():
    with pytest.raises(Failure, match=r"driver 470\.1 is older than 525.*HOROVOD_WITHOUT_GPU=1"):
        choose_cuda.choose("470.1")
    assert choose_cuda.choose("470.1", without_gpu=True) == 13
    assert choose_cuda.choose("535.1", without_gpu=True) == 12  # one GPU may still train


def test_what_is_asked_for_comes_first():
    assert choose_cuda.choose("580.1", asked="12", had=13) == 12
    assert choose_cuda.choose("535.1", asked="13") == 13
    assert "535.1, but CUDA=13 needs 580" in choose_cuda.check(13, "535.1")
    assert choose_cuda.check(13, "580.1") is None
    with pytest.raises(Failure, match="CUDA=/opt/cuda is neither 12 nor 13"):
        choose_cuda.choose(None, asked="/opt/cuda")


def test_an_environment_keeps_its_cuda_where_the_driver_runs_it(tmp_path):
    assert choose_cuda.cuda_of(tmp_path) is None
    (tmp_path / "lib/python3.11/site-packages/nvidia_dali_cuda120-2.4.0.dist-info").mkdir(
        parents=True
    )
    assert choose_cuda.cuda_of(tmp_path) == 12
    assert choose_cuda.choose(None, had=12) == 12
    assert choose_cuda.choose("580.1", had=12) == 12
    assert choose_cuda.choose("535.1", had=13) == 12


def test_the_driver_and_the_device_tell_of_a_gpu(root, tmp_path):
    assert not cuda_toolkit.has_gpu(tmp_path)
    assert choose_cuda.driver_version(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert cuda_toolkit.has_gpu(tmp_path)
    assert choose_cuda.driver_version(root("535.104.05")) == "535.104.05"
    assert cuda_toolkit.has_gpu(tmp_path)


def test_the_first_toolkit_of_the_same_major_version_is_taken(tmp_path):
    old, new = toolkit(tmp_path / "old", "12.8"), toolkit(tmp_path / "new", "13.0")
    assert cuda_toolkit.find([tmp_path, old, new], "13.2") == new
    assert cuda_toolkit.find([old, new], "12.8") == old
    assert cuda_toolkit.find([old], "13.2") == f"no toolkit of CUDA 13.2 ({old} has 12.8)"
    assert cuda_toolkit.find([tmp_path], "13.2") == "no toolkit of CUDA 13.2"


def test_nccl_is_left_out_only_without_a_gpu_or_when_told(tmp_path, root):
    assert cuda_toolkit.may_lack({}, tmp_path) == "no NVIDIA GPU"
    assert cuda_toolkit.may_lack({"CUDA": "13"}, tmp_path) is None
    root("580.1")
    assert cuda_toolkit.may_lack({}, tmp_path) is None
    assert cuda_toolkit.may_lack({"HOROVOD_WITHOUT_GPU": "1"}, tmp_path) == "HOROVOD_WITHOUT_GPU=1"


def test_without_a_gpu_nothing_is_brought(bare):
    reason = cuda_toolkit.find_or_bring("13.2", bare, bare / "log")
    assert reason == "no NVIDIA GPU, and no toolkit of CUDA 13.2"
    reason = cuda_toolkit.find_or_bring(None, bare, bare / "log")
    assert reason == "no NVIDIA GPU, and PyTorch is a CPU build"


def test_a_pytorch_without_cuda_is_refused_where_a_gpu_is(bare, monkeypatch):
    monkeypatch.setenv("CUDA", "13")
    with pytest.raises(Failure, match="CPU build: install one for CUDA"):
        cuda_toolkit.find_or_bring(None, bare, bare / "log")


def test_a_toolkit_is_brought_once_and_whole(bare, monkeypatch):
    monkeypatch.setattr(cuda_toolkit, "has_gpu", lambda *_: True)
    asked = []

    def install(command: list[str], log: Path, remedy: str) -> None:
        asked.append(command[-1])
        home = toolkit(Path(command[command.index("--target") + 1]) / "nvidia/cu13", "13.2")
        (home / "lib").mkdir()
        (home / "lib/libcudart.so.13").touch()
        if len(asked) == 1:
            raise Failure(remedy)

    monkeypatch.setattr(cuda_toolkit, "run", install)
    with pytest.raises(Failure, match="check the network, or set CUDA_HOME"):
        cuda_toolkit.find_or_bring("13.2", bare, bare / "log")
    for _ in range(2):
        home = cuda_toolkit.find_or_bring("13.2", bare, bare / "log")
        assert (home / "lib64/libcudart.so").exists()
    assert asked == ["cuda-toolkit[nvcc,cudart,cccl]==13.2.*"] * 2
    # A toolkit that is there, brought or not, is no reason to use it.
    monkeypatch.setenv("HOROVOD_WITHOUT_GPU", "1")
    assert cuda_toolkit.find_or_bring("13.2", bare, bare / "log") == "HOROVOD_WITHOUT_GPU=1"


def test_cuda_12_needs_the_sites_own_toolkit(bare, monkeypatch):
    monkeypatch.setattr(cuda_toolkit, "has_gpu", lambda *_: True)
    for build in (
        lambda: cuda_toolkit.find_or_bring("12.8", bare, bare / "log"),
        lambda: choose_cuda.check(12, "535.1"),  # before anything is downloaded
    ):
        with pytest.raises(Failure, match="load your site's module of CUDA 12"):
            build()


def test_nccl_beside_torch_comes_before_the_home_and_the_system(tmp_path):
    system = nccl(tmp_path / "usr", 2, "lib64/libnccl.so.2")
    found = cuda_toolkit.find_nccl(tmp_path / "site", 2, None, [tmp_path / "none", system])
    assert found == (system / "include/nccl.h", system / "lib64/libnccl.so.2")
    home = nccl(tmp_path / "home", 2)
    found = cuda_toolkit.find_nccl(tmp_path / "site", 2, str(home), [system])
    assert found == (home / "include/nccl.h", home / "lib/libnccl.so.2")
    beside = nccl(tmp_path / "site/nvidia/nccl", 2)
    (tmp_path / "site/nvidia/cudnn/lib").mkdir(parents=True)
    found = cuda_toolkit.find_nccl(tmp_path / "site", 2, str(home), [system])
    assert found == (beside / "include/nccl.h", beside / "lib/libnccl.so.2")


def test_an_nccl_of_another_major_version_is_not_taken(tmp_path):
    home = nccl(tmp_path / "home", 1, "lib/libnccl.so.1")
    with pytest.raises(Failure, match=r"no NCCL 2, .*home/include/nccl.h is of 1: set HOROVOD_NC"):
        cuda_toolkit.find_nccl(tmp_path / "site", 2, str(home), [])


def test_the_generations_are_those_that_both_know(tmp_path):
    home = toolkit(tmp_path, "13.0")
    (home / "bin/nvcc").write_text("#!/bin/sh\nprintf 'sm_80\\nsm_90\\nsm_100\\n'\n")
    flags = "sm_70 sm_80 sm_100 compute_120"
    assert cuda_toolkit.compute_capabilities(flags, home) == "80,100"


def test_the_newest_gcc_is_read_from_the_toolkit(tmp_path):
    assert host_compiler.newest_gcc(tmp_path) is None
    assert host_compiler.newest_gcc(limit(tmp_path, 15)) == 15
    (tmp_path / "include/crt/host_config.h").write_text("another world\n")
    assert host_compiler.newest_gcc(tmp_path) is None


def test_the_compiler_is_the_one_that_cmake_takes(tmp_path):
    assert host_compiler.compiler({"CXX": "ccache g++-15", "PATH": ""}) == ["ccache", "g++-15"]
    for name in ("g++", "c++"):
        (tmp_path / name).touch(0o755)
        assert host_compiler.compiler({"PATH": str(tmp_path)}) == [name]
    assert host_compiler.gcc_version([compiler(tmp_path, "__GNUC__ 15", "__STDC__ 1")]) == 15
    clang = compiler(tmp_path, "__GNUC__ 4", "__clang__ 1")
    assert host_compiler.gcc_version([clang]) is None
    assert host_compiler.gcc_version([str(tmp_path / "none")]) is None


def test_a_gcc_newer_than_nvcc_knows_is_refused(tmp_path):
    named = {"CXX": compiler(tmp_path, "__GNUC__ 16")}
    assert host_compiler.too_new(limit(tmp_path, 16), named) is None
    refused = host_compiler.too_new(limit(tmp_path, 15), named)
    assert "is GCC 16, but" in refused
    assert "set CXX=g++-15" in refused
    anyway = {"NVCC_APPEND_FLAGS": "-O1 -allow-unsupported-compiler"}
    assert host_compiler.too_new(tmp_path, named | anyway) is None


def test_a_compiler_that_is_too_new_costs_nccl_only_where_no_gpu_is(bare, monkeypatch):
    home = limit(toolkit(bare / "cuda", "13.0"), 15)
    monkeypatch.setattr(cuda_toolkit, "folders", lambda environment: [home])
    monkeypatch.setenv("CXX", compiler(bare, "__GNUC__ 16"))
    assert choose_cuda.check(13, None) is None
    reason = cuda_toolkit.find_or_bring("13.2", bare, bare / "log")
    assert reason.startswith(f"no NVIDIA GPU, and {bare}/some-g++ is GCC 16")
    monkeypatch.setattr(cuda_toolkit, "has_gpu", lambda *_: True)
    for build in (
        lambda: cuda_toolkit.find_or_bring("13.2", bare, bare / "log"),
        lambda: choose_cuda.check(13, "580.1"),  # before anything is downloaded
    ):
        with pytest.raises(Failure, match="is GCC 16, but .*HOROVOD_WITHOUT_GPU=1 builds without"):
            build()


def test_the_compiler_is_compared_with_a_toolkit_that_was_brought(bare, monkeypatch):
    monkeypatch.setattr(cuda_toolkit, "has_gpu", lambda *_: True)
    monkeypatch.setenv("CXX", compiler(bare, "__GNUC__ 16"))

    def install(command: list[str], log: Path, remedy: str) -> None:
        limit(toolkit(Path(command[command.index("--target") + 1]) / "nvidia/cu13", "13.2"), 15)

    monkeypatch.setattr(cuda_toolkit, "run", install)
    for _ in range(2):  # brought, then found
        with pytest.raises(Failure, match="is GCC 16, but .*/nvcc works with GCC 15 at most"):
            cuda_toolkit.find_or_bring("13.2", bare, bare / "log")
