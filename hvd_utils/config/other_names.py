"""Names that are no settings, and what to set instead: those of other scripts, and settings gone.

The other scripts are torchvision's and timm's training, PyTorch's and Horovod's examples, and
Composer's. The table in docs/training.md shows the names that are used most.
"""

from __future__ import annotations

# What another script calls a setting of this one, which may be followed by its value.
ELSEWHERE = {
    "a": "model",
    "aa": "augment",
    "amp": "precision bf16",
    "amp_dtype": "precision",
    "arch": "model",
    "auto_augment": "augment",
    "b": "batch-per-worker",
    "base_lr": "reference-rate",
    "batch": "batch-per-worker",
    "batch_size": "batch-per-worker",
    "batches_per_allreduce": "workers",
    "checkpoint_hist": "keep-checkpoints",
    "cutmix_alpha": "cutmix",
    "data_dir": "data",
    "data_path": "data",
    "decay_milestones": "decay-epochs",
    "decay_rate": "decay-factor",
    "e": "eval-only",
    "evaluate": "eval-only",
    "experiment": "output",
    "fp16": "precision fp16",
    "fp16_allreduce": "compression fp16",
    "image_size": "resolution",
    "img_size": "resolution",
    "initial_checkpoint": "init",
    "j": "loader-threads",
    "label_smooth": "label-smoothing",
    "learning_rate": "reference-rate",
    "log_interval": "log-every",
    "log_wandb": "track wandb",
    "lr": "reference-rate",
    "lr_base": "reference-rate",
    "lr_base_scale": "scaling",
    "lr_base_size": "reference-minibatch",
    "lr_gamma": "decay-factor",
    "lr_scheduler": "decay",
    "lr_step_size": "decay-epochs",
    "lr_warmup_epochs": "warmup-epochs",
    "lr_warmup_method": "warmup",
    "max_duration": "epochs",
    "mixup_alpha": "mixup",
    "model_ema": "average ema",
    "model_ema_decay": "average-decay",
    "no_cuda": "device cpu",
    "num_workers": "loader-threads",
    "opt": "optimizer",
    "output_dir": "output",
    "p": "log-every",
    "pretrained": "init",
    "print_freq": "log-every",
    "random_erase": "erase",
    "reprob": "erase",
    "sched": "decay",
    "smoothing": "label-smoothing",
    "test_only": "eval-only",
    "torchcompile": "compile",
    "train_crop_size": "resolution",
    "train_dir": "data",
    "val_batch_size": "val-batch",
    "val_crop_size": "val-resolution",
    "val_dir": "data",
    "val_resize_size": "val-resize",
    "validation_batch_size": "val-batch",
    "wd": "weight-decay",
    "weights": "init",
}

# What needs no setting here, and why.
NOT_NEEDED = {
    "num_classes": "none is needed, the class folders tell it",
    "start_epoch": "none is needed, a run with the same --output goes on by itself",
    "sync_bn": "batch norm is over the images of one worker, as the paper has it",
}

# Settings that are no more, and what to do instead.
_BUFFERS = "buffers are made for the largest image, --largest-height by --largest-width"
GONE = {
    "hw_decoder_load": "with a load between 0 and 1 an image's pixels depended on its place in the "
    "batch: set --decode hardware for 1, --decode gpu for 0",
    "usual_height": _BUFFERS,
    "usual_width": _BUFFERS,
}
