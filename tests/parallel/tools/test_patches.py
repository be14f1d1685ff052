"""The patches of Horovod's release: git takes each as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
