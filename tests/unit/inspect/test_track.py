"""A run's log in trackers: wandb offline and MLflow's files, stopped and resumed twice."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
from support.wandb_files import rows

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.inspect.track import main, metrics_of, track
from hvd_utils.run.event_log import METRICS, forget_after
from hvd_utils.run.run_log import RunLog
from hvd_utils.timing.step_times import StepTimes
from hvd_utils.trackers import sender
from hvd_utils.trackers.sender import check_tracker
from hvd_utils.training.metrics import Errors, Window

TIMES = StepTimes(
    {"data": [1, 2, 3], "compute": [4, 5, 6], "allreduce": [7, 8, 9]},
    {"data": 0.2, "compute": 0.3, "allreduce": 0.5},
    None,
)


def window(step, times=TIMES):
    return Window(step, 2, 1 / step, 10.0, 0.1, 4.0, 50.0, times)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's folder; trackers without a network."""
    for name in ("WANDB_PROJECT", "WANDB_NAME", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.yaml").write_text("recipe: demo\nworkers: 3\ndecay_epochs: [30, 60]\n")
    return folder


def launch(run, first, last, epochs=(), partial=False):
    """Log windows of two steps from a checkpoint after ``first``, and epochs that end at them."""
    forget_after(run, first, 0 if not first else sum(end <= first for end in epochs))
    log = RunLog(run, step=first, total_steps=20, epochs=2)
    log.write("start", step=first, total_steps=20, epochs=2, workers=3, minibatch=6,
              processes=1, hosts={"here": 1})  # fmt: skip
    for step in range(first + 2, last + 1, 2):
        log.step(window(step), epoch=0)
        if step in epochs:
            log.epoch(epochs.index(step), step, 1.0, Errors(40.0 + step, 1.0, 7), 0.1, 50.0)
    if partial:
        log.step(window(last + 1, None), epoch=0, partial=True)
    if last == 20:
        log.write("end", step=20, epochs=2, median_top1_error=50.0, seconds=1.0)
    log.close()


def interrupted_twice(run, name):
    """Stopped in the middle of a window, then killed after its last checkpoint; then it ends."""
    launch(run, 0, 8, partial=True)
    track(run, name, None)
    launch(run, 8, 14, epochs=(10, 20))  # of which a checkpoint after 12 is the last
    track(run, name, None)
    launch(run, 12, 20, epochs=(10, 20))
    track(run, name, None)


STEPS = [*range(2, 21, 2)]


def test_wandb_goes_on_in_the_same_run_with_each_step_once(run):
    interrupted_twice(run, "wandb")
    limit = time.monotonic() + 60  # wandb's own process writes the file
    while len(found := rows(run)) < len(STEPS) and time.monotonic() < limit:
        time.sleep(0.5)
    assert [row["step"] for row in found if "train/loss" in row] == STEPS
    assert [row["train/loss"] for row in found if "train/loss" in row] == [1 / s for s in STEPS]
    errors = {row["step"]: row["val/top1_error"] for row in found if "val/top1_error" in row}
    assert errors == {10: 50.0, 20: 60.0}
    places = [row["_step"] for row in found]
    assert places == sorted(set(places))  # wandb drops what does not rise
    (run_id,) = {path.stem for path in run.glob("wandb/offline-run-*/*.wandb")}
    assert run_id == f"run-{json.loads((run / 'trackers/wandb.json').read_text())['id']}"


def test_mlflow_goes_on_in_the_same_run_with_each_step_once(run):
    from mlflow import MlflowClient

    interrupted_twice(run, "mlflow")
    client = MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == sender.PROJECT]
    (made,) = client.search_runs([experiment.experiment_id])
    assert (made.info.run_name, made.info.status) == ("run", "FINISHED")
    assert made.data.params == {"recipe": "demo", "workers": "3", "decay_epochs": "[30, 60]"}
    losses = client.get_metric_history(made.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in losses] == [(s, 1 / s) for s in STEPS]
    errors = client.get_metric_history(made.info.run_id, "val/top1_error")
    assert [(m.step, m.value) for m in errors] == [(10, 50.0), (20, 60.0)]


def test_trackers_have_the_names_that_tensorboard_has(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    launch(run, 0, 4, epochs=(4,))
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    lines = (run / METRICS).read_text().splitlines()
    names = {name for line in lines for name in metrics_of(json.loads(line))}
    assert names == set(board.Tags()["scalars"])


def test_a_log_that_is_none_is_refused_in_one_line(run, monkeypatch):
    (run / METRICS).write_text('{"event": "start"}\n[1]\n')
    with pytest.raises(BadInput, match="metrics.jsonl, line 1"):
        track(run, "wandb", None)
    (run / METRICS).write_text("")
    (run / "trackers/wandb.json").write_text("[]")
    with pytest.raises(BadInput, match=r"wandb.json: .* mend or remove it"):
        track(run, "wandb", None)
    monkeypatch.setattr("sys.argv", ["track", str(run / "none"), "wandb"])
    with pytest.raises(BadInput, match="is no run"):
        main()


def test_a_tracker_that_is_not_here_is_refused_with_pips_command(monkeypatch):
    monkeypatch.setattr(sender.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="--track wandb: .*pip install wandb"):
        check_tracker("wandb")
    with pytest.raises(BadInput, match="--track mlflow: .*pip install mlflow-skinny"):
        check_tracker("mlflow")


def test_mlflow_has_to_be_told_where_to_write(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_URI is not set"):
        check_tracker("mlflow")


def test_only_rank_0_needs_a_tracker_and_all_are_told(monkeypatch):
    """The other hosts may lack its package and variables."""
    settings = Settings(recipe="test", track=("mlflow",))
    root, other = (SimpleNamespace(is_root=is_root) for is_root in (True, False))
    root.broadcast = lambda value: value
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    other.broadcast = lambda value: ""  # rank 0 has found nothing wrong
    sender.require_trackers(settings, other)
    other.broadcast = lambda value: "--track mlflow: as rank 0 says"
    for world in (root, other):
        with pytest.raises(BadInput, match="--track mlflow"):
            sender.require_trackers(settings, world)


def test_wandb_is_offline_where_there_is_no_route():
    from hvd_utils.trackers.weights_and_biases import mode

    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}  # nobody listens there
    assert mode(nowhere) == "offline"
    assert mode({**nowhere, "WANDB_MODE": "online"}) == "online"
