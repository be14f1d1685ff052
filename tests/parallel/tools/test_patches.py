"""The patches of Horovod's release: git takes each as it is, and CMake does what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import install_horovod as installer
import patching
import pytest
from support.launching import REPOSITORY

PATCHES = patching.series(installer.PATCHES)


@pytest.fixture
def released(tmp_path) -> Path:
    """The release's own files, without those of others that no patch changes."""
    archive = REPOSITORY / ".setup/horovod" / f"horovod-{installer.VERSION}.tar.gz"
    if not archive.exists():
        pytest.skip("the source distribution was removed after the set-up")
    changed = set(re.findall(r"^\+\+\+ b/(.*)", "".join(p.read_text() for p in PATCHES), re.M))
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            if not name.startswith("third_party/") or name in changed:
                tar.extract(member, tmp_path)
    return tmp_path / f"horovod-{installer.VERSION}"


def git(source: Path, *arguments: object) -> str:
    who = [(role, what) for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    names = {f"GIT_{role}_{what}": "test@test" for role, what in who}
    ended = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=source,
        capture_output=True,
        text=True,
        env={**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_git_takes_each_patch_in_order_where_it_says_and_with_its_head(released):
    copy = shutil.copytree(released, released.with_name("git"))
    git(copy, "init", "--quiet")
    git(copy, "add", "--all", "--force")
    git(copy, "commit", "--quiet", "--message", "Horovod as it was released")
    for patch in PATCHES:
        tried = git(copy, "apply", "--check", "--verbose", patch)
        assert "offset" not in tried, f"{patch.name}: {tried}"
        git(copy, "am", "--quiet", patch)
        changed = patching.apply(patch, released)
        assert sorted(git(copy, "diff", "--name-only", "HEAD~").split()) == sorted(changed)
        assert all((copy / name).read_bytes() == (released / name).read_bytes() for name in changed)
        subject, _, body = git(copy, "log", "-1", "--format=%s%n%b").partition("\n")
        why, *told = re.split(r"(?:^|(?<=\. ))(?:Origin|Upstream|Needs): ", body, flags=re.M)
        assert re.match(r"[A-Z].*[^.]$", subject), patch.name
        assert why.strip(), patch.name
        assert [bool(word.strip()) for word in told] == [True] * 3, patch.name
        assert re.match(r"no\.|its master ", told[1]), patch.name
        assert re.match(r"nothing\.|the patch that ", told[2]), patch.name


TORCH = {
    "__init__.py": "from . import torch, version\n__version__ = '2.15.0'\n",
    "torch.py": "def compiled_with_cxx11_abi(): return True\n",
    "version.py": "cuda = '13.2'\nhip = None\n",
    "utils/cpp_extension.py": "import shutil, types\n"
    "CUDA_HOME, ROCM_HOME = shutil.which('nvcc'), None\n"
    "def CppExtension(name, sources):\n"
    "    return types.SimpleNamespace(include_dirs=[], library_dirs=[], libraries=[])\n"
    "CUDAExtension = CppExtension\n",
}


def test_cmake_looks_for_no_cuda_where_it_is_told_to_build_without(released, tmp_path):
    """With a stand-in for PyTorch, of CUDA, and one for nvcc, which tells that it was called."""
    if not (cmake := shutil.which("cmake")):
        pytest.skip("no cmake")
    for patch in PATCHES:
        patching.apply(patch, released)
    for name, text in TORCH.items():
        path = tmp_path / "lib/torch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    nvcc = tmp_path / "bin/nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nexit 1\n")
    nvcc.chmod(0o755)
    without = {f"HOROVOD_WITHOUT_{name}": "1" for name in ("GPU", "MPI", "TENSORFLOW", "MXNET")}
    ended = subprocess.run(
        [cmake, released, f"-DPYTHON_EXECUTABLE:FILEPATH={sys.executable}"],
        cwd=nvcc.parent,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            **without,
            "HOROVOD_WITHOUT_GLOO": "1",
            "HOROVOD_WITH_PYTORCH": "1",
            "PATH": f"{nvcc.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(tmp_path / "lib"),
        },
    )
    print(ended.stdout, ended.stderr)
    assert not (tmp_path / "called").exists()
    assert "CUDA" not in ended.stdout
    assert ended.returncode == 0
