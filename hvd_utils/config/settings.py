"""All settings of a run: names, units, defaults and bounds.

A setting is declared once. Those of ``recipe.py`` are part of the experiment: together with the
data they determine every weight. Those here define where and how it runs.
A recipe file overrides the defaults, the command line the recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.interval import parse
from hvd_utils.config.recipe import (
    AugmentationSettings,
    AveragingSettings,
    FineTuningSettings,
    MinibatchSettings,
    ModelSettings,
    OptimizerSettings,
    RateSettings,
    Recipe,
    Section,
)
from hvd_utils.config.storage_settings import StorageSettings

DIGITS = "digits"  # the embedded data set's name, where a folder's would stand


class SpeedSettings(Section):
    """speed (the weights change by rounding alone)."""

    channels_last: bool | None = Field(
        None,
        description="channels-last in memory; unset: where it was measured to be quicker",
    )
    pad_stem: bool = Field(
        False,
        description="compute the first convolution with a fourth channel, of zeros, which tensor "
        "cores take better than three",
    )
    compile: Literal["none", "default", "cudagraphs"] = Field(
        "none",
        description="torch.compile, stage by stage: none, default or cudagraphs (a GPU's, fewer "
        "launches); takes a minute or more before the first step",
    )
    batch_norm: Literal["auto", "triton", "torch"] = Field(
        "auto",
        description="kernels of batch norm: triton (on GPUs, with ReLU and the shortcut's sum), "
        "torch, or auto: triton with --compile and for passes of several workers",
    )
    cudnn_benchmark: bool = Field(
        True,
        description="on GPUs, let cuDNN try its algorithms at each size of images and keep the "
        "quickest; without it, a run made twice on one GPU is the same to the bit",
    )


class RunSettings(Section):
    """the run."""

    data: str | None = Field(
        None,
        description=f"folder with train/ and val/ in class folders or shards, '{DIGITS}', or "
        "shards at s3://BUCKET/PREFIX or https://HOST/PATH; or with the index of tars at URLs",
    )
    output: Path | None = Field(
        None, description="folder of the run; unset: a new one below runs/, named after the recipe"
    )
    loader: Literal["dali", "torchvision", "synthetic"] = Field(
        "dali", description="dali, torchvision (the reference) or synthetic (no files)"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    fuse_workers: int | None = Field(
        None,
        gt=0,
        description="most logical workers in one pass through the model, with the same result; "
        "unset: 1 on a CPU, as many as fill a GPU",
    )
    max_steps: int | None = Field(None, gt=0, description="stop after so many steps of the run")
    log_every: int = Field(20, gt=0, description="between two logged steps, steps")
    resume: str = Field(
        "auto", description="auto: newest checkpoint of --output, if any; never; or a checkpoint"
    )
    eval_only: Path | None = Field(
        None,
        description="print the errors of these weights and stop: a run, a checkpoint, a .pth or "
        ".safetensors file, timm/NAME or torchvision/NAME",
    )
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
    decode: Literal["cpu", "gpu", "hardware", "auto"] = Field(
        "cpu",
        description="of the dali loader on GPUs, where JPEGs are decoded: cpu (threads), gpu "
        "(CUDA), hardware (the GPU's JPEG engines) or auto (the quickest); all but cpu have to "
        "pass a probe",
    )
    largest_height: int | None = Field(
        None,
        ge=0,
        description="pixels of the image that --decode gpu and hardware make buffers for; unset: "
        "the largest of a prepared data set, else ImageNet's; 0: DALI's own choice",
    )
    largest_width: int | None = Field(None, ge=0, description="likewise")
    pin: bool | None = Field(
        None,
        description="keep each process to its share of the node's cores, near its GPU; "
        "unset: with GPUs, where the launcher bound nothing",
    )
    loader_threads: int | None = Field(
        None, gt=0, description="decoding threads of a process; unset: its share of the cores"
    )
    synthetic_images: int = Field(
        1_281_167, gt=0, le=10**9, description="length of an epoch of the synthetic loader, images"
    )

    @field_validator("checkpoint_every", mode="before")
    @classmethod
    def _is_interval(cls, value: str | int) -> str:
        parse(value)
        return str(value)


def _whole_numbers(value: Any, separator: str) -> Any:
    """Return the whole numbers of a text, () where it is another; what is no text as it is."""
    if not isinstance(value, (str, int)):
        return value
    parts = str(value).split(separator)
    return tuple(int(part) for part in parts) if all(p.isdecimal() for p in parts) else ()


class WatchSettings(Section):
    """watching the run (no weight changes)."""

    profile: tuple[int, int] | None = Field(
        None,
        description="trace these steps, from 1, as 100-110: PyTorch's profiler and Horovod's "
        "timeline, in the run's folder",
    )
    profile_ranks: tuple[int, ...] = Field((0,), description="whose steps --profile traces, as 0,7")

    track: tuple[Literal["wandb", "mlflow"], ...] = Field(
        (), description="show the log in trackers too, as wandb,mlflow"
    )

    @field_validator("track", mode="before")
    @classmethod
    def _split_trackers(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else value
        return tuple(dict.fromkeys(names)) if isinstance(names, (list, tuple)) else names

    @field_validator("profile", mode="before")
    @classmethod
    def _are_steps(cls, value: Any) -> Any:
        steps = _whole_numbers(value, "-")
        if steps is not None and not (len(steps) == 2 and 1 <= steps[0] <= steps[1]):
            raise ValueError("takes the first and the last step, from 1, as 100-110")
        return steps

    @field_validator("profile_ranks", mode="before")
    @classmethod
    def _are_ranks(cls, value: Any) -> Any:
        ranks = _whole_numbers(value, ",")
        if not ranks:
            raise ValueError("takes ranks, from 0, as 0,7")
        return ranks

    @model_validator(mode="after")
    def _ranks_of_a_profile(self) -> WatchSettings:
        if self.profile is None and self.profile_ranks != (0,):
            raise ValueError(
                "--profile-ranks has no effect without --profile, as --profile 100-110"
            )
        return self


class CommunicationSettings(Section):
    """communication (§4); HOROVOD_* in the environment come first."""

    bucket_mb: float | None = Field(
        None,
        ge=0,
        description="gradients summed in one message, MB, the same ones in every launch; "
        "0: whichever are ready, up to --fusion-mb; unset: 8 on a CPU, 25 on GPUs",
    )
    fusion_mb: float | None = Field(
        None, ge=0, description="Horovod's fusion buffer, MB; unset: as --bucket-mb needs it"
    )
    cycle_ms: float | None = Field(
        None, gt=0, description="between two looks for gradients; unset: 1 on a CPU, 0.1 on GPUs"
    )
    allreduce: Literal["flat", "hierarchical", "torus"] = Field(
        "flat",
        description="over NCCL: flat, torus (between nodes by NCCL) or hierarchical (by MPI)",
    )
    nccl_streams: int | None = Field(
        None, gt=0, description="sums under way at once on a GPU; unset: Horovod's default, 1"
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


class Settings(
    CommunicationSettings, SpeedSettings, WatchSettings, StorageSettings, RunSettings, Recipe
):
    """All settings of a run."""

    recipe: str
    _init_digest: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _an_evaluation_is_no_run(self) -> Settings:
        for name in ("profile", "track"):
            if self.eval_only is not None and getattr(self, name):
                raise ValueError(f"--{name} has no effect with --eval-only, which trains nothing")
        return self

    def experiment(self) -> dict[str, Any]:
        """Return the settings that determine the weights, as plain values.

        Of the weights to start from it is the checksum that counts, wherever they lie.
        """
        values = self.model_dump(mode="json", include=set(Recipe.model_fields))
        return values | {"init": self._init_digest}

    def with_init(self, digest: str) -> Settings:
        """Return these settings with the checksum of the weights to start from."""
        settings = self.model_copy()
        settings._init_digest = digest
        return settings

    def with_workers(self, processes: int) -> Settings:
        """Return these settings with k decided: as many workers as processes, unless set.

        Raises BadInput where there are more processes than workers to carry.
        """
        workers = self.workers or processes
        if processes > workers:
            raise BadInput(
                f"{processes} processes cannot share --workers {workers}: start at most "
                f"{workers}, or raise --workers"
            )
        return self.model_copy(update={"workers": workers})


SECTIONS = (
    RunSettings,
    StorageSettings,
    WatchSettings,
    CommunicationSettings,
    MinibatchSettings,
    RateSettings,
    OptimizerSettings,
    AveragingSettings,
    ModelSettings,
    FineTuningSettings,
    AugmentationSettings,
    SpeedSettings,
)
