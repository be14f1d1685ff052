"""Patches are applied exactly where they say, or nothing is changed; ours are whole."""

from __future__ import annotations

import shutil
import subprocess

import install_horovod as installer
import patching
import pytest

BEFORE = "".join(f"line {number}\n" for number in range(1, 41))
AFTER = BEFORE.replace("line 3\n", "line three\nand more\n").replace("line 30\n", "")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text(BEFORE)
    (tmp_path / "source" / "b.txt").write_text("one\n")
    return tmp_path / "source"


@pytest.fixture
def patch(source, tmp_path):
    """As git makes one, of two files."""
    new = tmp_path / "new"
    shutil.copytree(source, new)
    (new / "a.txt").write_text(AFTER)
    (new / "b.txt").write_text("two\n")
    command = ["git", "diff", "--no-index", "--no-color", "--src-prefix=", "--dst-prefix="]
    made = subprocess.run(
        [*command, "source", "new"], cwd=tmp_path, capture_output=True, text=True
    ).stdout.replace("--- source/", "--- a/")
    path = tmp_path / "0001.patch"
    path.write_text("Why\n---\n" + made.replace("+++ new/", "+++ b/"))
    return path


def test_all_hunks_of_all_files_are_applied(source, patch):
    assert patching.apply(patch, source) == ["a.txt", "b.txt"]
    assert (source / "a.txt").read_text() == AFTER
    assert (source / "b.txt").read_text() == "two\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("line 31\n", "line 31 \n"), "a.txt is not as expected at line"),
        (lambda text: "one more\n" + text, "a.txt is not as expected at line"),
        (lambda text: AFTER, "a.txt is not as expected"),
        (lambda text: text[:50], "a.txt is not as expected"),
    ],
)
def test_a_patch_that_does_not_fit_changes_nothing(source, patch, change, words):
    other = change(BEFORE)
    (source / "a.txt").write_text(other)
    with pytest.raises(patching.DoesNotFit, match=words):
        patching.apply(patch, source)
    assert (source / "a.txt").read_text() == other
    assert (source / "b.txt").read_text() == "one\n"


def test_a_missing_file_and_an_empty_patch_are_named(source, patch):
    (source / "b.txt").unlink()
    with pytest.raises(patching.DoesNotFit, match=r"0001.patch: there is no b.txt"):
        patching.apply(patch, source)
    patch.write_text("nothing\n")
    with pytest.raises(patching.DoesNotFit, match="changes nothing"):
        patching.apply(patch, source)


def test_every_patch_of_horovod_is_in_the_series_and_says_why():
    patches = patching.series(installer.PATCHES)
    assert sorted(installer.PATCHES.glob("*.patch")) == patches
    for patch in patches:
        head = patch.read_text().partition("\ndiff --git")[0]
        for word in ("Subject: [PATCH] ", "\nOrigin: ", "Upstream: ", "\nNeeds: "):
            assert word in head, patch.name
