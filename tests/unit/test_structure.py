"""The structure of the code: which package may import which, and how large its parts may be."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("hvd_utils", "dali_pipeline", "benchmarks")

# What a package may import. Arrows go one way: a package is named after all that it may import.
LAYERS: dict[str, set[str]] = {}
LAYERS["hvd_utils.cli"] = set()
LAYERS["hvd_utils.config"] = {"hvd_utils.cli"}
LAYERS["hvd_utils.paper"] = {"hvd_utils.config"}
LAYERS["hvd_utils.faults"] = {"hvd_utils.cli"}

_GROUND = {"hvd_utils.cli", "hvd_utils.config"}
LAYERS["dali_pipeline.storage"] = {"hvd_utils.cli"}
LAYERS["dali_pipeline.dataset"] = _GROUND | {"dali_pipeline.storage"}
LAYERS["dali_pipeline.sampling"] = _GROUND | {"hvd_utils.paper", "dali_pipeline.dataset"}
LAYERS["dali_pipeline.loading"] = _GROUND | {
    "hvd_utils.faults",
    "dali_pipeline.dataset",
    "dali_pipeline.sampling",
}
LAYERS["dali_pipeline.preparation"] = {
    "hvd_utils.faults",
    "hvd_utils.cli",
    "dali_pipeline.storage",
    "dali_pipeline.dataset",
}
LAYERS["dali_pipeline.staging"] = _GROUND | {
    "hvd_utils.faults",
    "dali_pipeline.storage",
    "dali_pipeline.dataset",
    "dali_pipeline.preparation",
}
LAYERS["dali_pipeline.benchmarking"] = {*LAYERS} - {"hvd_utils.faults", "dali_pipeline.staging"}

LAYERS["hvd_utils.networks"] = _GROUND
LAYERS["hvd_utils.nn"] = _GROUND | {"hvd_utils.paper", "hvd_utils.networks"}
LAYERS["hvd_utils.horovod_backend"] = _GROUND | {"hvd_utils.faults", "hvd_utils.nn"}
LAYERS["hvd_utils.timing"] = {
    "hvd_utils.paper",
    "hvd_utils.faults",
    "hvd_utils.horovod_backend",
}
LAYERS["hvd_utils.training"] = _GROUND | {
    "hvd_utils.faults",
    "hvd_utils.networks",
    "hvd_utils.nn",
    "hvd_utils.horovod_backend",
    "hvd_utils.timing",
}
LAYERS["hvd_utils.trackers"] = _GROUND
LAYERS["hvd_utils.run"] = {name for name in LAYERS if name.startswith("hvd_utils")} | {
    "dali_pipeline.sampling",
    "dali_pipeline.loading",
}
LAYERS["hvd_utils.inspect"] = _GROUND | {
    "hvd_utils.faults",
    "hvd_utils.timing",
    "hvd_utils.trackers",
    "hvd_utils.run",
}
LAYERS["hvd_utils.weights"] = _GROUND | {
    "hvd_utils.networks",
    "hvd_utils.nn",
    "hvd_utils.horovod_backend",
    "hvd_utils.training",
    "hvd_utils.run",
    "hvd_utils.inspect",
    "dali_pipeline.dataset",
    "dali_pipeline.sampling",
    "dali_pipeline.loading",
}
LAYERS["hvd_utils.report"] = {
    "hvd_utils.cli",
    "hvd_utils.paper",
    "hvd_utils.timing",
    "hvd_utils.inspect",
}
LAYERS["hvd_utils.scaling"] = {
    "hvd_utils.cli",
    "hvd_utils.paper",
    "hvd_utils.nn",
    "hvd_utils.inspect",
}
LAYERS["hvd_utils.reproduction"] = {
    "hvd_utils.cli",
    "hvd_utils.paper",
    "hvd_utils.inspect",
    "hvd_utils.scaling",
}
LAYERS["hvd_utils.preflight"] = {
    name
    for name in LAYERS
    if name.removeprefix("hvd_utils.")
    not in ("run", "inspect", "report", "scaling", "reproduction")
}
# Its package is pure; the command is entered from outside and uses what lies above.
COMMANDS = {"hvd_utils.paper.__main__"}

FILES, LINES, PARAMETERS = 15, 300, 10


def sources() -> list[Path]:
    """Return every Python file of the project but its tests."""
    found = [path for root in (*ROOTS, "examples") for path in (REPOSITORY / root).rglob("*.py")]
    return [*found, REPOSITORY / "train_imagenet.py"]


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module(path: Path) -> str:
    """Return a file's module by name."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Yield each module that a file imports, wherever in it and for types alone too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(name: str) -> str | None:
    """Return the package of ``LAYERS`` that a module belongs to; None for a command."""
    outer = ".".join(name.split(".")[:2])
    return outer if outer in LAYERS and name not in COMMANDS else None


def test_every_package_is_in_the_table():
    packages = {
        module(path)
        for root in ("hvd_utils", "dali_pipeline")
        for path in (REPOSITORY / root).glob("*/__init__.py")
    }
    assert packages == set(LAYERS)


def test_the_wheel_has_every_package():
    listed = configparser.ConfigParser()
    listed.read(REPOSITORY / "setup.cfg")
    packages = {module(path) for path in sources() if path.name == "__init__.py"}
    shipped = {name for name in packages if not name.startswith(("benchmarks", "examples"))}
    assert set(listed["options"]["packages"].split()) == shipped


def test_packages_import_only_what_they_may():
    wrong = []
    for path in sources():
        here = package(module(path))
        for name in imported(path):
            there = package(name)
            if here and there and there != here and there not in LAYERS[here]:
                wrong.append(f"{module(path)} imports {name}")
            # Commands are entered from outside: nothing in a package imports one.
            if here and name.startswith(ROOTS) and not there:
                wrong.append(f"{module(path)} imports the command {name}")
    assert wrong == []


def test_the_table_goes_one_way():
    seen: set[str] = set()
    for name, below in LAYERS.items():
        assert below <= seen, f"{name} may import {below - seen}, which come later"
        seen.add(name)


def test_one_package_imports_horovod():
    users = {package(module(path)) for path in sources()
             if any(name.split(".")[0] == "horovod" for name in imported(path))}  # fmt: skip
    assert users - {None} == {"hvd_utils.horovod_backend"}


@pytest.mark.parametrize(
    "name", ["hvd_utils.paper", "hvd_utils.faults", "dali_pipeline.sampling", "hvd_utils.inspect"]
)
def test_pure_packages_load_neither_torch_nor_horovod(name):
    folder = REPOSITORY / name.replace(".", "/")
    modules = [module(path) for path in folder.glob("*.py")]
    modules.remove(name)
    if name == "hvd_utils.inspect":
        modules.remove("hvd_utils.inspect.compare")  # reads checkpoints
    program = (
        f"import sys, {', '.join(modules)}\n"
        "assert not {'torch', 'horovod', 'nvidia'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def is_kernel(function: ast.FunctionDef) -> bool:
    return "triton.jit" in map(ast.unparse, function.decorator_list)


def test_sizes_stay_small():
    large = []
    for folder in {path.parent for path in sources()}:
        files = len([*folder.glob("*.py")])
        if files > FILES:
            large.append(f"{folder.relative_to(REPOSITORY)} has {files} files")
    for path in sources():
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LINES:
            large.append(f"{path.relative_to(REPOSITORY)} has {lines} lines")
        for node in ast.walk(tree(path)):
            # A kernel of Triton is handed each tensor and each size by itself.
            if isinstance(node, ast.FunctionDef) and not is_kernel(node):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([one for one in every if one.arg not in ("self", "cls")])
                if count > PARAMETERS:
                    large.append(f"{module(path)}.{node.name} takes {count} parameters")
    assert large == []


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_package_says_what_lives_in_it(name):
    """What it holds, then what it may import and where to start reading."""
    text = ast.get_docstring(tree(REPOSITORY / name.replace(".", "/") / "__init__.py"))
    assert text, name
    assert "import" in text, f"{name} does not say what it may import"
    assert "Start with" in text, f"{name} does not say where to start reading"
