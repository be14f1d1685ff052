"""The recipe: the settings that, with the data, determine every weight.

A setting is declared once, with name, unit, default and bound. The defaults are the paper's.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Those for small images, with the blocks in each of their three stages.
SMALL_RESNETS = {"resnet8": 1, "resnet20": 3}


class Section(BaseModel):
    """Settings that belong together; the subclass's docstring is their heading in --help."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(Section):
    """model (§5.1)."""

    model: str = Field(
        "resnet50",
        description="a classification network of torchvision, timm/NAME, resnet8 or resnet20",
    )
    zero_gamma: bool = Field(
        True, description="start the last batch norm of each residual block at γ = 0, not 1"
    )
    initialise: Literal["paper", "library"] = Field(
        "paper",
        description="convolutions, batch norms and the last layer: as the paper does, or as the "
        "network's library",
    )


class FineTuningSettings(Section):
    """fine-tuning."""

    init: str | None = Field(
        None,
        description="weights to start from: a run, a checkpoint, a .pth, .pt or .safetensors file, "
        "timm/NAME or torchvision/NAME",
    )
    freeze: tuple[str, ...] = Field(
        (), description="parts or parameters that are not trained, as conv1,bn1,layer[12]"
    )
    head_rate: float = Field(
        1, gt=0, description="the last layer's learning rate, as a multiple of the others'"
    )

    @field_validator("freeze", mode="before")
    @classmethod
    def _split_patterns(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value


class MinibatchSettings(Section):
    """minibatch (§2.1, §2.3)."""

    batch_per_worker: int = Field(32, gt=0, description="n, images of one worker in one step")
    workers: int | None = Field(
        None, gt=0, le=10**6, description="k, logical workers; unset: as many as processes"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp64"] = Field(
        "fp32",
        description="fp32; tf32, bf16 or fp16 (mixed precision), quicker on a GPU; or fp64, which "
        "shows that runs agree but for rounding",
    )
    seed: int = Field(1, ge=0, lt=2**63, description="of weights, order, crops and flips")
    order: Literal["computed", "stored"] = Field(
        "computed",
        description="each epoch's shuffle: computed place by place, or stored, as it was before; a "
        "run that goes on keeps its own",
    )
    shuffle: Literal["global", "window"] = Field(
        "global",
        description="each epoch: global (all images, Remark 4), or window, which departs from it: "
        "shards, and images within windows of them, so that storage is read in large pieces",
    )
    shuffle_window: int = Field(
        65536, gt=0, description="of --shuffle window, images shuffled at once, of all workers"
    )

    @property
    def minibatch(self) -> int:
        """The images of a step over all workers, kn; ``workers`` has to be set."""
        return self.workers * self.batch_per_worker


class RateSettings(Section):
    """learning rate (§2.1, §2.2, §5.1)."""

    reference_rate: float = Field(0.1, gt=0, description="rate for the reference minibatch")
    reference_minibatch: int = Field(256, gt=0, description="reference minibatch, images")
    scaling: Literal["linear", "sqrt", "none"] = Field(
        "linear", description="how the rate grows with kn: linear, sqrt or none"
    )
    warmup: Literal["gradual", "constant", "none"] = Field(
        "gradual", description="where kn exceeds the reference: gradual, constant or none"
    )
    warmup_epochs: float = Field(5, ge=0, description="length of warmup, epochs")
    epochs: int = Field(90, gt=0, le=10**6, description="length of training, epochs")
    decay: Literal["step", "cosine", "polynomial"] = Field(
        "step",
        description="step: at --decay-epochs; cosine or polynomial: from the end of warmup to 0",
    )
    decay_epochs: tuple[float, ...] = Field(
        (30, 60, 80), description="when the rate decays, epochs, as 30,60,80"
    )
    decay_factor: float = Field(0.1, gt=0, le=1, description="what it is multiplied by")
    decay_power: float = Field(2, gt=0, description="exponent of polynomial decay")

    @field_validator("decay_epochs", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value

    @field_validator("decay_epochs")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(epoch <= 0 for epoch in value):
            raise ValueError("every decay epoch must be greater than 0")
        return value


class OptimizerSettings(Section):
    """optimizer (§5.1) and loss."""

    optimizer: Literal["sgd", "lars"] = Field(
        "sgd", description="sgd, or lars, whose rate follows each layer's norms (You et al. 2017)"
    )
    trust_coefficient: float = Field(
        1e-3, gt=0, description="of lars: a layer's rate is so much of its norm over the gradient's"
    )
    label_smoothing: float = Field(
        0, ge=0, lt=1, description="share of a label spread over all classes, in training alone"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum m")
    nesterov: bool = Field(True, description="Nesterov momentum")
    momentum_form: Literal["rate-outside", "rate-inside", "rate-inside-uncorrected"] = Field(
        "rate-outside",
        description="of sgd: the rate outside the momentum, equation (9), or inside, (10), with "
        "Remark 2's correction or, which is wrong, without",
    )
    weight_decay: float = Field(1e-4, ge=0, description="λ of the weights")
    decay_batch_norm: bool = Field(
        False, description="decay batch norms' γ and β too, which the paper does not"
    )
    compression: Literal["none", "fp16", "bf16"] = Field(
        "none", description="what gradients are rounded to while they are summed"
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> OptimizerSettings:
        if self.nesterov and self.momentum == 0:
            raise ValueError("Nesterov needs a momentum: set --momentum, or --no-nesterov")
        return self

    @model_validator(mode="after")
    def _form_is_of_momentum(self) -> OptimizerSettings:
        if self.momentum_form != "rate-outside" and self.momentum == 0:
            raise ValueError("--momentum-form needs a momentum: set --momentum, or leave it out")
        return self

    @model_validator(mode="after")
    def _lars_leaves_batch_norm_alone(self) -> OptimizerSettings:
        if self.optimizer == "lars" and self.decay_batch_norm:
            raise ValueError(
                "lars neither decays nor adapts batch norms' γ and β: leave out --decay-batch-norm"
            )
        return self


class AveragingSettings(Section):
    """averaged weights and statistics."""

    average: Literal["none", "ema"] = Field(
        "none",
        description="validate the weights of the step (none), or their exponential moving average "
        "(ema)",
    )
    average_decay: float = Field(
        0.9999,
        gt=0,
        lt=1,
        description="a step keeps this share of the average, so about the last 1 / (1 - share) "
        "steps count; early in a run, the last tenth of the steps",
    )
    recompute_statistics: int = Field(
        0,
        ge=0,
        description="training images over which batch norm's statistics are computed anew before "
        "validation, rounded up to minibatches; 0: the running average",
    )


class AugmentationSettings(Section):
    """images (§5.1)."""

    resolution: int = Field(224, gt=0, description="side of a training and validation crop, pixels")
    resolution_from: int | None = Field(
        None, gt=0, description="side of the first epochs' training crops, pixels; unset: as later"
    )
    resolution_ramp: tuple[float, float] | None = Field(
        None, description="between which epochs that side grows to --resolution, as 6,13"
    )
    val_resolution: int | None = Field(
        None, gt=0, description="side of a validation crop, pixels; unset: as --resolution"
    )
    val_resize: int = Field(256, gt=0, description="shorter side before validation's crop, pixels")
    min_crop_area: float = Field(0.08, gt=0, le=1, description="smallest crop, share of the image")
    max_crop_ratio: float = Field(4 / 3, ge=1, description="most elongated crop, long over short")
    antialias: bool = Field(
        True, description="filter before reducing, as PIL does; off is quicker and less accurate"
    )
    flip: bool = Field(True, description="mirror half of the training images")
    augment: Literal["none", "trivial"] = Field(
        "none", description="trivial: one operation an image (TrivialAugment); by CPU threads"
    )
    erase: float = Field(
        0, ge=0, le=1, description="share of training images in which a random box is erased"
    )
    mixup: float = Field(
        0, ge=0, description="α of Beta(α, α), by which a worker's images are blended; 0: never"
    )
    cutmix: float = Field(
        0, ge=0, description="likewise, of a box pasted into an image; with --mixup: either"
    )

    @field_validator("resolution_ramp", mode="before")
    @classmethod
    def _split_ramp(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _crop_fits(self) -> AugmentationSettings:
        if self.val_resize < (self.val_resolution or self.resolution):
            crop = "--val-resolution" if self.val_resolution else "--resolution"
            raise ValueError(f"--val-resize may not be smaller than {crop}")
        return self

    @model_validator(mode="after")
    def _ramp_grows(self) -> AugmentationSettings:
        start, ramp = self.resolution_from, self.resolution_ramp
        if (start is None) != (ramp is None):
            raise ValueError(
                "--resolution-from and --resolution-ramp belong together: set both or neither"
            )
        if start is not None and start > self.resolution:
            raise ValueError(
                f"--resolution-from {start} may not be larger than --resolution {self.resolution}"
            )
        if ramp is not None and not 0 <= ramp[0] < ramp[1]:
            raise ValueError(
                "--resolution-ramp takes two epochs, the first before the second, as 6,13"
            )
        return self


class Recipe(
    AugmentationSettings,
    AveragingSettings,
    OptimizerSettings,
    RateSettings,
    MinibatchSettings,
    FineTuningSettings,
    ModelSettings,
):
    """What is trained: with the data, it determines every weight."""

    @model_validator(mode="after")
    def _has_images_to_mix(self) -> Recipe:
        if (self.mixup or self.cutmix) and self.batch_per_worker == 1:
            raise ValueError(
                "--mixup and --cutmix mix a worker's images with one another: set "
                "--batch-per-worker to 2 or more"
            )
        return self


# Settings that have an effect only where another one has this value.
ONLY_WITH = {
    "decay_epochs": ("decay", "step"),
    "decay_factor": ("decay", "step"),
    "decay_power": ("decay", "polynomial"),
    "trust_coefficient": ("optimizer", "lars"),
    "momentum_form": ("optimizer", "sgd"),
    "average_decay": ("average", "ema"),
    "order": ("shuffle", "global"),
    "shuffle_window": ("shuffle", "window"),
}
