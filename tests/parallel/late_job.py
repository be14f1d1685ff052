"""The job as on a GPU: a loss that is not finite is noticed only where the host looks, not at once.

``late_job.py [the job's own arguments]``
"""

from __future__ import annotations

import train_imagenet
from hvd_utils import failure, guard

update = guard.Guard.update


def update_unseen(self, *arguments) -> None:
    self._waits = False
    update(self, *arguments)


guard.Guard.update = update_unseen

if __name__ == "__main__":
    failure.run(train_imagenet.main)
