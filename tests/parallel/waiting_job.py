"""The job, which waits a minute for its data or to evaluate: ``waiting_job.py data|evaluate …``."""

from __future__ import annotations

import sys
import time

import train_imagenet
from dali_pipeline import dataset
from hvd_utils import evaluate, failure

WHERE = sys.argv.pop(1)


def slow(function):
    def wait_first(*arguments, **options):
        print("waiting", flush=True)
        time.sleep(60)
        return function(*arguments, **options)

    return wait_first


if WHERE == "data":
    train_imagenet.open_dataset = slow(dataset.open_dataset)
else:
    evaluate.validate = slow(evaluate.validate)

if __name__ == "__main__":
    failure.run(train_imagenet.main)
