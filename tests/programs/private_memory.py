"""The job, then a line of each rank: its memory that no file backs, MB."""

from __future__ import annotations

import os

import train_imagenet
from dali_pipeline.benchmarking.index_growth import private_megabytes
from hvd_utils.cli.run_main import run_main


def main() -> None:
    train_imagenet.main()
    os.write(1, f"private memory: {private_megabytes():.0f} MB\n".encode())


if __name__ == "__main__":
    run_main(main)
