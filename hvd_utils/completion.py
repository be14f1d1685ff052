"""Completion of all commands in a shell: ``source <(python -m hvd_utils.completion bash)``.

For bash and zsh. What it offers comes from the commands' parsers and the settings.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args, get_origin

from hvd_utils import commands
from hvd_utils.cli.completion import Command, script
from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.command_line import known_recipes
from hvd_utils.config.recipe import SMALL_RESNETS
from hvd_utils.config.settings import Settings

SHELLS = ("bash", "zsh")
SLOW = ("torch", "torchvision", "horovod", "nvidia", "mpi4py")  # seconds to import


class _Caught(BaseException):
    """Carries a parser out of the command that made it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the script for a shell."""
    parser = Parser(prog="python -m hvd_utils.completion", description=__doc__)
    parser.add_argument("shell", metavar="SHELL", help=" or ".join(SHELLS))
    shell = parser.parse_args(arguments).shell
    if shell not in SHELLS:
        raise BadInput(f"no completion for the shell {shell}: give {' or '.join(SHELLS)}")
    print(script(shell, all_commands()), end="")


def all_commands() -> list[Command]:
    """Return the installed commands with their parsers; imports nothing that takes long."""
    blocked = [name for name in SLOW if name not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))  # None: an import of it fails
    try:
        return [
            _command(name, entry.args[0])
            for name, entry in vars(commands).items()
            if isinstance(entry, partial)
        ]
    finally:
        for name in blocked:
            del sys.modules[name]


def _command(name: str, module: str) -> Command:
    values = _values() if name in ("train", "preflight") else {}
    called = f"{module}.py" if name == "train" else module
    return Command(f"imagenet-{name}", called, parser_of(module), values)


def parser_of(module: str) -> argparse.ArgumentParser | None:
    """Return the parser that a command's ``main`` makes; None if that needs what takes long."""

    def catch(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Caught(parser)

    parse = argparse.ArgumentParser.parse_known_args  # which parse_args calls
    argparse.ArgumentParser.parse_known_args = catch  # type: ignore[assignment]
    try:
        package = hasattr(importlib.import_module(module), "__path__")
        importlib.import_module(f"{module}.__main__" if package else module).main()
    except _Caught as caught:
        return caught.args[0]
    except ModuleNotFoundError as error:
        if error.name not in SLOW:
            raise
    finally:
        argparse.ArgumentParser.parse_known_args = parse
    return None


def _values() -> Mapping[str, Sequence[str]]:
    """Return what the settings that are words take, by name."""
    found: dict[str, Sequence[str]] = {
        name: get_args(field.annotation)
        for name, field in Settings.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
    return found | {"recipe": known_recipes(), "model": [*SMALL_RESNETS, *_torchvision_networks()]}


def _torchvision_networks() -> list[str]:
    """Return the names of torchvision's classifiers: read, since importing them takes seconds."""
    package = importlib.machinery.PathFinder.find_spec("torchvision")
    if package is None or package.origin is None:
        return []
    sources = sorted((Path(package.origin).parent / "models").glob("*.py"))
    registered = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.M)
    return [name for file in sources for name in registered.findall(file.read_text("utf-8"))]


if __name__ == "__main__":
    run_main(main)
