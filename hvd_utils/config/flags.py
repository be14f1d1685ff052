"""The flags of training, one for each setting, and their help."""

from __future__ import annotations

import argparse
from typing import NoReturn

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.parser import Parser
from hvd_utils.config.settings import SECTIONS


class SettingsParser(Parser):
    """A parser of settings, among others."""

    def error(self, message: str) -> NoReturn:
        """Raise BadInput; see ``argparse``."""
        raise BadInput(f"{message} (--help lists all settings)")


# Where the type of a setting does not say what it takes.
METAVARS = {
    "cache_size": "SIZE",
    "checkpoint_every": "STEPS|TIME",
    "data": "DIR|URL",
    "eval_only": "WEIGHTS",
    "init": "WEIGHTS",
    "profile": "FIRST-LAST",
    "profile_ranks": "N,N",
    "resolution_ramp": "FIRST,LAST",
    "resume": "auto|never|FILE",
}


def _metavar(name: str, annotation: str) -> str:
    if name in METAVARS:
        return METAVARS[name]
    for part, metavar in (
        ("Path", "PATH"),
        ("tuple[str", "NAME,NAME"),
        ("tuple[typing.Literal", "NAME,NAME"),
        ("tuple", "X,X"),
        ("int", "N"),
        ("float", "X"),
    ):
        if part in annotation:
            return metavar
    return "NAME"


def parser() -> argparse.ArgumentParser:
    """Return a parser made from the declarations; values are checked later, with the recipe's."""
    made = SettingsParser(
        prog="train_imagenet.py",
        description="Train a ResNet by the recipe of Goyal et al. 2017 on any number of workers.",
        epilog="Launch with horovodrun, mpirun or srun; alone, it is one worker. "
        "Defaults are the paper's; a recipe file overrides them, a flag overrides both.",
        allow_abbrev=False,
    )
    add_settings(made)
    return made


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the declared settings; what is not given has no name among the parsed flags."""
    left_out = argparse.SUPPRESS
    parser.add_argument(
        "--recipe",
        default=left_out,
        metavar="NAME",
        help="name of a file in recipes/ or path of one (default: paper with --data, else demo)",
    )
    for section in SECTIONS:
        group = parser.add_argument_group(section.__doc__.rstrip("."))
        for name, field in section.model_fields.items():
            flag = "--" + name.replace("_", "-")
            default = field.default
            if isinstance(default, tuple):
                default = ",".join(f"{value:g}" for value in default) or None
            elif isinstance(default, float):
                default = f"{default:.4g}"
            text = f"{field.description} (default: {'unset' if default is None else default})"
            if "bool" in str(field.annotation):
                switch = argparse.BooleanOptionalAction
                group.add_argument(flag, dest=name, action=switch, help=text, default=left_out)
            else:
                metavar = _metavar(name, str(field.annotation))
                text = text.replace("%", "%%")
                group.add_argument(flag, dest=name, metavar=metavar, help=text, default=left_out)
