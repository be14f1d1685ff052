"""What the pages point at is there: files, headings, functions, modules, tests and options."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
from support.pages import PAGES, REPOSITORY, anchors, code, links

from hvd_utils.config.other_names import ELSEWHERE

ROOMS = ("hvd_utils", "dali_pipeline", "benchmarks", "examples", "tests", "tools", "patches")
ROOMS += ("slurm", "docs")
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@EACH
def test_links_lead_somewhere(page):
    for text, target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"[{text}]({target})"
        if anchor:
            assert anchor in anchors(path), f"[{text}]({target})"
        if path.suffix == ".py" and text.startswith("`"):
            found = re.search(rf"^(def|class) {text[1:-1]}\b", path.read_text(), re.MULTILINE)
            assert found, f"{target} has no {text}"


@EACH
def test_files_and_modules_that_are_named_exist(page):
    for words in code(page):
        for word in words.split():
            if word.startswith(tuple(f"{room}/" for room in ROOMS)):
                assert (REPOSITORY / word).exists(), word
            if re.fullmatch(r"test_\w+\.py", word):
                assert [*(REPOSITORY / "tests").rglob(word)], word
        module = re.match(r"(?:python -m )?((?:hvd_utils|dali_pipeline|benchmarks)\.[\w.]+)", words)
        if module and "python -m" in words:
            assert importlib.util.find_spec(module[1]), words


@cache
def options() -> frozenset[str]:
    """Every option that a command of the project, or a launcher's script, knows."""
    found: set[str] = set()
    for path in REPOSITORY.rglob("*.py"):
        if path.relative_to(REPOSITORY).parts[0] in (*ROOMS, "train_imagenet.py"):
            found |= set(re.findall(r"--[a-z][a-z0-9-]+", path.read_text(encoding="utf-8")))
    recipe = REPOSITORY / "hvd_utils/config"
    for name in ("recipe.py", "settings.py"):
        fields = re.findall(r"^    (\w+): ", (recipe / name).read_text(), re.MULTILINE)
        found |= {f"--{field.replace('_', '-')}" for field in fields}
        found |= {f"--no-{field.replace('_', '-')}" for field in fields}
    return frozenset(found)


OF_OTHERS = {"--ntasks-per-node", "--batch", "--signal", "--logdir", "--bind-to", "--max-np"}


@EACH
def test_options_that_are_named_exist(page):
    for words in code(page):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", words):
            known = options() | OF_OTHERS
            if page.name == "training.md":  # which has a table of names in other scripts
                known |= {f"--{name.replace('_', '-')}" for name in ELSEWHERE}
            assert option in known, f"`{words}`"


def test_the_readme_is_short():
    lines = Path(REPOSITORY / "README.md").read_text(encoding="utf-8").count("\n")
    assert lines <= 200
