"""The job as on a GPU: a loss that is not finite is noticed only where the host looks, not at once.

``late_job.py [the job's own arguments]``
"""

from __future__ import annotations

import train_imagenet
from hvd_utils.cli.run_main import run_main
from hvd_utils.training import nonfinite

update = nonfinite.Guard.update


def update_unseen(self, *arguments) -> None:
    self._waits = False
    update(self, *arguments)


nonfinite.Guard.update = update_unseen

if __name__ == "__main__":
    run_main(train_imagenet.main)
