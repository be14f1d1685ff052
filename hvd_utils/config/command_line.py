"""Read a recipe file and a command line into checked settings.

A recipe file overrides the defaults, the command line the recipe.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hvd_utils.cli.checkout import RECIPES
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.flags import parser
from hvd_utils.config.recipe import ONLY_WITH, Recipe
from hvd_utils.config.settings import Settings
from hvd_utils.config.unknown_setting import suggestion, unknown_flag
from hvd_utils.config.wrong_value import reasons


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line: recipe file, then ``IMAGENET_DIR``, then flags.

    Without --recipe the recipe is ``paper`` where data is named, ``demo`` where not.
    Raises BadInput naming the setting, its value and its bound.
    """
    flags, unknown = parser().parse_known_args(arguments)
    if unknown:
        raise BadInput(unknown_flag(unknown, arguments))
    return settings_of(vars(flags), environment)


def settings_of(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Return the settings of parsed ``flags``, by name; see ``load_settings``."""
    given = dict(flags)
    imagenet = environment.get("IMAGENET_DIR")
    if "" in (given.get("recipe"), given.get("output")):
        raise BadInput("--recipe and --output take a name, not an empty text (--help)")
    name = given.pop("recipe", None) or ("paper" if given.get("data") or imagenet else "demo")
    values = read_recipe(name)
    if imagenet and values.get("data") is None:
        values["data"] = imagenet
    check_effect(given, {**values, **given})
    tuned = given.get("autotune") or values.get("autotune")
    if tuned and Path(str(tuned)).exists():
        values |= read_recipe(str(tuned))
    return validate({**values, **given, "recipe": name}, f"recipe {name} or the command line")


def known_recipes() -> list[str]:
    """Return the names of the recipes in ``recipes/``, as --recipe takes them."""
    files = [*RECIPES.glob("*.yaml"), *RECIPES.glob("*/*.yaml")]
    return sorted(str(file.relative_to(RECIPES).with_suffix("")) for file in files)


def read_recipe(name: str) -> dict[str, Any]:
    """Return what a recipe sets. ``name`` is a file, or the name of one in ``recipes/``.

    Raises BadInput if there is no such recipe or it is not a list of known settings.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise BadInput(_no_recipe(name, error)) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"recipe {path} is not a text in UTF-8: {error.reason}") from error
    except (yaml.YAMLError, ValueError, KeyError, RecursionError) as error:
        raise BadInput(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"recipe {path} must be lines of the form 'setting: value'")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    for key in values:
        if key not in Settings.model_fields or key == "recipe":
            raise BadInput(f"unknown setting {key} in recipe {path}{suggestion(key, '{}: {}')}")
    return values


def _no_recipe(name: str, error: OSError) -> str:
    """Return what to say of a recipe that cannot be read: the one that was probably meant."""
    names = {known.rpartition("/")[2]: known for known in known_recipes()}
    stem = Path(name).name.removesuffix(".yaml").removesuffix(".yml")
    close = difflib.get_close_matches(stem, names, n=1)
    mean = f"did you mean {names[close[0]]}? " if close else ""
    top = ", ".join(known for known in names.values() if "/" not in known)
    is_name = isinstance(error, FileNotFoundError) and not name.endswith((".yaml", ".yml"))
    why = "" if is_name else f" ({error.strerror})"
    return f"no recipe {name}{why}: {mean}give one of {top}, one of tables/, or a .yaml file"


def check_effect(given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Raise BadInput if a flag is given that has no effect, all settings being as ``values``."""
    for name, (other, needed) in ONLY_WITH.items():
        value = values.get(other, Recipe.model_fields[other].default)
        if name in given and value != needed:
            flag, other_flag = (f"--{n.replace('_', '-')}" for n in (name, other))
            raise BadInput(
                f"{flag} has no effect with {other_flag} {value}: leave it out, or set "
                f"{other_flag} {needed}"
            )
    if "init" in given and values.get("eval_only"):  # a recipe's is of the run that is evaluated
        raise BadInput(
            "--init has no effect with --eval-only, which evaluates the checkpoint that it names: "
            "leave one of them out"
        )


def validate(values: Mapping[str, Any], source: str) -> Settings:
    """Return checked settings; raise BadInput naming each that is wrong and its value."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        wrong = "; ".join(reasons(error))
        raise BadInput(f"{wrong} ({source}; --help lists all settings)") from None
