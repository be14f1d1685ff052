"""The end of a launch in the middle of an epoch."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from dali_pipeline.dataset.bad_images import BadList
from hvd_utils.cli.errors import Stopped
from hvd_utils.config.settings import Settings
from hvd_utils.run.lifecycle import Run
from hvd_utils.run.progress import Progress


def run_at(progress: Progress) -> Run:
    """Return a run on rank 0 that has found a bad image, with stand-ins for all else."""
    run = Run.__new__(Run)
    run.settings = Settings(recipe="test", on_bad_image="skip")
    run.output, run.progress, run._first = Path("run"), progress, 0
    for part in ("world", "training", "watchdog", "_plan", "_stop", "_records", "save"):
        setattr(run, part, MagicMock())
    run._window = MagicMock()
    run._plan.settings = run.settings
    run._plan.bad_images.return_value = BadList(1, {"a.jpg": "empty"})
    return run


def test_a_launch_that_is_told_to_stop_lists_its_bad_images():
    """The next one goes on behind them; of a billion images an epoch is longer than a launch."""
    run = run_at(Progress(step=7, window_steps=2))
    with pytest.raises(Stopped):
        run._leave()
    run._records.bad_images.assert_called_once_with(1, {"a.jpg": "empty"})


@pytest.mark.parametrize(("window_steps", "times"), [(2, 1), (0, 0)])
def test_max_steps_lists_them_unless_an_epoch_just_did(window_steps, times):
    run = run_at(Progress(step=7, window_steps=window_steps))
    run.end()
    assert run._records.bad_images.call_count == times
