"""Ranks that decide on --decode, for each argument in turn, as on GPUs whose hardware crashes."""

from __future__ import annotations

import sys

import torch

from dali_pipeline.dataset.open_data import open_dataset
from dali_pipeline.loading.decoding import probe
from dali_pipeline.loading.decoding.choose import decide_decoding
from hvd_utils.cli.run_main import run_main
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import start_world

PLANTED = {"cpu": "Sound", "gpu": "RoundsOtherwise", "hardware": "Crashes"}


def main() -> None:
    """Print each rank's choice."""
    torch.cuda.get_device_name = lambda device: "a card"
    probe.DECODERS = {way: f"planted_decoders:{name}" for way, name in PLANTED.items()}
    world = start_world("cpu")
    for decode in sys.argv[1:]:
        settings = Settings(recipe="demo", data="digits", decode=decode)
        device, splits = torch.device("cuda", world.local_rank), open_dataset(settings, world)
        chosen = decide_decoding(settings, splits, world, device).decode
        print(f"rank {world.rank} takes {chosen}", flush=True)


run_main(main)
