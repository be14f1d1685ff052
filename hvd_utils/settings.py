"""The settings of a run: names, units, defaults and bounds; from recipe file and command line.

A setting is declared once. Those of ``recipe.py`` are part of the experiment: together with the
data they determine every weight. Those here say where and how it is carried out.
A recipe file overrides the defaults, the command line the recipe.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from pydantic import Field, ValidationError, field_validator

from hvd_utils.failure import BadInput, launched_rank
from hvd_utils.interval import parse
from hvd_utils.recipe import (
    ONLY_WITH,
    AugmentationSettings,
    AveragingSettings,
    MinibatchSettings,
    ModelSettings,
    OptimizerSettings,
    RateSettings,
    Recipe,
    Section,
)

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SHOWN = 100  # characters of a value that is wrong
DIGITS = "digits"  # the embedded data set's name, where a folder's would stand


class SpeedSettings(Section):
    """speed (the weights change by rounding alone)."""

    channels_last: bool | None = Field(
        None,
        description="channels-last in memory; none: where it was measured to be quicker",
    )
    compile: Literal["none", "default", "cudagraphs"] = Field(
        "none",
        description="torch.compile, stage by stage: none, default or cudagraphs (a GPU's, fewer "
        "launches); takes a minute or more before the first step",
    )
    cudnn_benchmark: bool = Field(
        True,
        description="on GPUs, let cuDNN try its algorithms at each size of images and keep the "
        "quickest; without it, a run made twice on one GPU is the same to the bit",
    )


class RunSettings(Section):
    """the run."""

    data: str | None = Field(
        None, description=f"folder with train/ and val/ in class folders, or '{DIGITS}'"
    )
    output: Path | None = Field(
        None, description="folder of the run; none: a new one below runs/, named after the recipe"
    )
    loader: Literal["dali", "torchvision", "synthetic"] = Field(
        "dali", description="dali, torchvision (the reference) or synthetic (no files)"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    fuse_workers: int | None = Field(
        None,
        gt=0,
        description="most logical workers in one pass through the model, with the same result; "
        "none: 1 on a CPU, as many as fill a GPU",
    )
    max_steps: int | None = Field(None, gt=0, description="stop after so many steps of the run")
    log_every: int = Field(20, gt=0, description="between two logged steps, steps")
    resume: str = Field(
        "auto", description="auto: newest checkpoint of --output, if any; never; or a checkpoint"
    )
    eval_only: Path | None = Field(None, description="print the errors of this checkpoint and stop")
    checkpoint_every: str = Field(
        "10min", description="between two checkpoints in an epoch: steps, as 500, or time, as 10min"
    )
    keep_checkpoints: int = Field(
        3, ge=0, description="newest checkpoints kept, and the best one; 0: all"
    )
    stall_timeout: float = Field(
        300,
        ge=0,
        le=1e8,
        description="without any progress, end the job after so many seconds; 0: never",
    )
    val_batch: int = Field(100, gt=0, description="validation images decoded at once in a process")
    on_bad_image: Literal["stop", "skip"] = Field(
        "stop",
        description="when an image cannot be read: stop, or skip, which takes the next one instead",
    )
    prefetch: int = Field(3, gt=0, description="batches decoded ahead")
    hw_decoder_load: float = Field(
        0.75, ge=0, le=1, description="share of JPEGs for a GPU's hardware decoder, if it has one"
    )
    usual_height: int = Field(
        375, ge=0, description="pixels of images that a GPU's decoder makes buffers for; 0: none"
    )
    usual_width: int = Field(500, ge=0, description="likewise")
    pin: bool | None = Field(
        None,
        description="keep each process to its share of the node's cores, near its GPU; "
        "none: with GPUs, where the launcher bound nothing",
    )
    loader_threads: int | None = Field(
        None, gt=0, description="decoding threads of a process; none: its share of the cores"
    )
    synthetic_images: int = Field(
        1_281_167, gt=0, le=10**9, description="length of an epoch of the synthetic loader, images"
    )

    @field_validator("checkpoint_every", mode="before")
    @classmethod
    def _is_interval(cls, value: str | int) -> str:
        parse(value)
        return str(value)


class CommunicationSettings(Section):
    """communication (§4); HOROVOD_* in the environment come first."""

    bucket_mb: float | None = Field(
        None,
        ge=0,
        description="gradients summed in one message, MB, the same ones in every launch; "
        "0: whichever are ready, up to --fusion-mb; none: 8 on a CPU, 25 on GPUs",
    )
    fusion_mb: float | None = Field(
        None, ge=0, description="Horovod's fusion buffer, MB; none: as --bucket-mb needs it"
    )
    cycle_ms: float | None = Field(
        None, gt=0, description="between two looks for gradients; none: 1 on a CPU, 0.1 on GPUs"
    )
    allreduce: Literal["flat", "hierarchical", "torus"] = Field(
        "flat",
        description="over NCCL: flat, torus (between nodes by NCCL) or hierarchical (by MPI)",
    )
    nccl_streams: int | None = Field(
        None, gt=0, description="sums under way at once on a GPU; none: Horovod's default, 1"
    )
    autotune: Path | None = Field(
        None,
        description="a recipe of tuned communication: taken if it is there, else this run tries "
        "values out and writes it",
    )

    @field_validator("autotune")
    @classmethod
    def _is_a_recipe(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix not in (".yaml", ".yml"):
            raise ValueError("what is found becomes a recipe: give a name that ends in .yaml")
        return value


class Settings(CommunicationSettings, SpeedSettings, RunSettings, Recipe):
    """All settings of a run."""

    recipe: str

    def experiment(self) -> dict[str, Any]:
        """Return the settings that determine the weights, as plain values."""
        return self.model_dump(mode="json", include=set(Recipe.model_fields))

    def with_workers(self, processes: int, earlier: int | None = None) -> Settings:
        """Return these settings with k decided: as many workers as processes, unless set.

        ``earlier`` is the k of a run that goes on in another world. Raises BadInput where there are
        more processes than workers to carry.
        """
        workers = self.workers or earlier or processes
        if processes > workers:
            raise BadInput(
                f"{processes} processes cannot share --workers {workers}: start at most "
                f"{workers}, or raise --workers"
            )
        return self.model_copy(update={"workers": workers})


SECTIONS = (
    RunSettings,
    CommunicationSettings,
    MinibatchSettings,
    RateSettings,
    OptimizerSettings,
    AveragingSettings,
    ModelSettings,
    AugmentationSettings,
    SpeedSettings,
)


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings of a command line: recipe file, then ``IMAGENET_DIR``, then flags.

    Without --recipe the recipe is ``paper`` where data is named, ``demo`` where not.
    Raises BadInput naming the setting, its value and its bound.
    """
    given = vars(_parser().parse_args(arguments))
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
    files = (path.relative_to(RECIPES) for path in RECIPES.rglob("*.yaml"))
    return sorted(str(file.with_suffix("")) for file in files)


def read_recipe(name: str) -> dict[str, Any]:
    """Return what a recipe sets. ``name`` is a file, or the name of one in ``recipes/``.

    Raises BadInput if there is no such recipe or it is not a list of known settings.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise BadInput(
            f"no recipe {name} ({path}: {error.strerror}): give one of "
            f"{', '.join(known_recipes())}, or a .yaml file"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"recipe {path} is not a text in UTF-8: {error.reason}") from error
    except (yaml.YAMLError, ValueError, KeyError, RecursionError) as error:
        raise BadInput(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"recipe {path} must be lines of the form 'setting: value'")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    for key in values:
        if key not in Settings.model_fields or key == "recipe":
            raise BadInput(f"unknown setting {key} in recipe {path}{_suggest(key)}")
    return values


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


def validate(values: Mapping[str, Any], source: str) -> Settings:
    """Return checked settings; raise BadInput naming each that is wrong and its value."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        wrong = []
        for item in error.errors():
            reason = item["msg"].removeprefix("Value error, ")
            if item["loc"]:
                flag = "--" + str(item["loc"][0]).replace("_", "-")
                value = str(item["input"])
                value = f"{value[:SHOWN]}…" if len(value) > SHOWN else value
                wrong.append(f"{flag} {value}: {reason}")
            else:
                wrong.append(reason)
        raise BadInput(f"{'; '.join(wrong)} ({source}; --help lists all settings)") from None


def _suggest(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    return f": did you mean {close[0]}?" if close else ": --help lists all settings"


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        if launched_rank() == 0:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        _, _, unknown = message.partition("unrecognized arguments: ")
        if unknown:
            flag = unknown.split()[0].partition("=")[0]
            close = _suggest(flag.lstrip("-").replace("-", "_")).replace("_", "-")
            raise BadInput(f"unknown setting {flag}{close.replace('mean ', 'mean --')}")
        raise BadInput(f"{message} (--help lists all settings)")


def _metavar(annotation: str) -> str:
    for part, metavar in (("Path", "PATH"), ("tuple", "X,X"), ("int", "N"), ("float", "X")):
        if part in annotation:
            return metavar
    return "NAME"


def _parser() -> argparse.ArgumentParser:
    """Build the command line from the declarations; values are checked later, with the recipe's."""
    parser = _Parser(
        prog="train_imagenet.py",
        description="Train a ResNet by the recipe of Goyal et al. 2017 on any number of workers.",
        epilog="Launch with horovodrun, mpirun or srun; alone, it is one worker. "
        "Defaults are the paper's; a recipe file overrides them, a flag overrides both.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="name of a file in recipes/ or path of one (default: paper with --data, else demo)",
    )
    for section in SECTIONS:
        group = parser.add_argument_group(section.__doc__.rstrip("."))
        for name, field in section.model_fields.items():
            flag = "--" + name.replace("_", "-")
            default = field.default
            if isinstance(default, tuple):
                default = ",".join(f"{value:g}" for value in default)
            elif isinstance(default, float):
                default = f"{default:.4g}"
            text = f"{field.description} (default: {'none' if default is None else default})"
            if "bool" in str(field.annotation):
                group.add_argument(
                    flag, dest=name, action=argparse.BooleanOptionalAction, help=text
                )
            else:
                metavar = _metavar(str(field.annotation))
                group.add_argument(flag, dest=name, metavar=metavar, help=text.replace("%", "%%"))
    return parser
