"""The job, which waits a minute for its data or to evaluate: ``waiting_job.py data|evaluate …``."""

from __future__ import annotations

import sys
import time

import train_imagenet
from dali_pipeline.dataset import open_data
from hvd_utils.cli.run_main import run_main
from hvd_utils.weights import evaluate

WHERE = sys.argv.pop(1)


def slow(function):
    def wait_first(*arguments, **options):
        print("waiting", flush=True)
        time.sleep(60)
        return function(*arguments, **options)

    return wait_first


if WHERE == "data":
    train_imagenet.open_dataset = slow(open_data.open_dataset)
else:
    evaluate.validate = slow(evaluate.validate)

if __name__ == "__main__":
    run_main(train_imagenet.main)
