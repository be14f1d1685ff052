"""The run's directory: what is written, read again, and forgotten when steps are made anew."""

import json
import os
import pty
import subprocess
import sys

import pytest

from hvd_utils.cli import progress_bar
from hvd_utils.cli.errors import BadInput
from hvd_utils.config.settings import Settings
from hvd_utils.run.event_log import METRICS, forget_after, read_events
from hvd_utils.run.folder import create_output
from hvd_utils.run.progress import Progress
from hvd_utils.run.records import Records
from hvd_utils.run.run_log import BAD_IMAGES, RunLog, final_line, list_bad_images
from hvd_utils.training.metrics import Errors, Window


def window(step, loss=1.0):
    return Window(step, 2, loss, 10.0, 0.1, 4.0, 50.0)


def test_steps_and_epochs_carry_the_documented_fields(tmp_path, capsys):
    log = RunLog(tmp_path, step=0, total_steps=4, epochs=2)
    log.step(window(2), epoch=0)
    log.epoch(0, 2, 1.0, Errors(5.0, 1.0, 40), 0.1, 50.0)
    log.close()
    step, epoch = read_events(tmp_path)
    assert step["event"] == "step"
    assert {"step", "epoch", "lr", "loss", "images_per_second"} <= set(step)
    assert epoch["event"] == "epoch"
    fields = {"epoch", "train_loss", "val_top1_error", "val_top5_error", "val_images", "lr"}
    assert fields | {"images_per_second"} <= set(epoch)
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert "top-1 error 5.00 %" in capsys.readouterr().out


def test_a_line_still_being_written_is_left_out(tmp_path):
    (tmp_path / METRICS).write_text('{"event": "start"}\n{"event": "st')
    assert [event["event"] for event in read_events(tmp_path)] == ["start"]


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path):
    lines = [{"event": "step", "step": step} for step in (2, 4, 6)]
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    forget_after(tmp_path, 4, 0)
    assert [event["step"] for event in read_events(tmp_path)] == [2, 4]
    forget_after(tmp_path / "new", 4, 0)  # a first run has nothing to forget


def test_an_epoch_that_is_validated_again_and_a_partial_window_are_forgotten(tmp_path):
    """A job stopped after an epoch's last step, before its validation, saves at the same step."""
    lines = [
        {"event": "epoch", "step": 4, "epoch": 0},
        {"event": "step", "step": 7, "partial": True},
        {"event": "step", "step": 8},
        {"event": "epoch", "step": 8, "epoch": 1},
    ]
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    forget_after(tmp_path, 8, 1)
    assert list(read_events(tmp_path)) == [lines[0], lines[2]]


def test_a_run_without_output_gets_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = create_output(None, "demo"), create_output(None, "demo")
    assert first != second
    assert first.name.startswith("demo-")
    assert second.is_dir()


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to output folder .*file/run"):
        create_output(tmp_path / "file" / "run", "demo")


def test_a_full_disk_is_named(tmp_path):
    (tmp_path / METRICS).symlink_to("/dev/full")
    log = RunLog(tmp_path, step=0, total_steps=4, epochs=2)
    with pytest.raises(BadInput, match="cannot write .*metrics.jsonl: No space left"):
        log.write("step", step=1)


def test_the_final_figure_is_the_median_of_the_last_five_epochs():
    progress = Progress(top1_errors=[90.0, 50.0, 24.0, 23.0, 23.9, 23.5, 23.7])
    assert progress.final_error() == 23.7
    assert final_line(23.7, 7) == "done: median top-1 error of the last 5 epochs: 23.70 %"
    assert Progress(top1_errors=[9.0]).final_error() == 9.0
    assert Progress().final_error() is None
    assert "no epoch was finished" in final_line(None, 0)


def test_an_epochs_loss_is_the_mean_over_its_steps():
    progress = Progress(step=3, window_steps=3, window_loss=6.0)
    progress.close_window()
    progress.step, progress.window_steps, progress.window_loss = 4, 1, 6.0
    progress.close_window()
    assert progress.epoch_loss / progress.epoch_steps == 3.0
    progress.finish_epoch(5.0)
    assert (progress.epoch, progress.epoch_steps, progress.step) == (1, 0, 4)
    assert progress.is_best
    progress.finish_epoch(6.0)
    assert not progress.is_best


@pytest.mark.parametrize("launched", [{}, {"OMPI_COMM_WORLD_RANK": "0"}])
@pytest.mark.parametrize("looked_at", [True, False])
def test_a_bar_is_drawn_on_the_terminal_that_somebody_looks_at(launched, looked_at):
    """Open MPI gives a rank a terminal even when its own output is a file: the launcher decides."""
    program = "from hvd_utils.cli.progress_bar import terminal; print(terminal())"
    ask = [sys.executable, "-c", program]
    ours, screen = pty.openpty()
    ranks, rank_screen = pty.openpty()  # what Open MPI makes for its rank
    rank_output = f"stdout={rank_screen}" if launched else ""
    launcher = [sys.executable, "-c", f"import subprocess as s; s.run({ask!r}, {rank_output})"]
    ended = subprocess.run(
        launcher,
        stdout=screen if looked_at else subprocess.PIPE,
        env={**os.environ, **launched},
        pass_fds=[rank_screen],
        check=True,
    )
    seen_on = ranks if launched else ours
    answer = os.read(seen_on, 100) if launched or looked_at else ended.stdout
    assert answer.decode().strip() == (os.ttyname(screen) if looked_at else "None")
    for descriptor in (ours, screen, ranks, rank_screen):
        os.close(descriptor)


def test_a_terminal_of_another_user_is_none(monkeypatch, tmp_path):
    """As behind ``su``. On one's own, names of any bytes are shown."""
    monkeypatch.setattr(progress_bar, "terminal", lambda: str(tmp_path))  # cannot be opened
    assert progress_bar.open_terminal() is None
    monkeypatch.setattr(progress_bar, "terminal", lambda: str(tmp_path / "screen"))
    with progress_bar.open_terminal() as screen:
        screen.write("caf\udce9")
    assert (tmp_path / "screen").read_text() == "caf\\udce9"


def test_bad_images_are_listed_and_those_beyond_the_list_are_counted(tmp_path, capsys):
    records = Records(tmp_path, Settings(recipe="test", workers=1), Progress(step=2), last_step=9)
    listed = tmp_path / BAD_IMAGES
    records.bad_images(0, {})
    assert not listed.exists()
    named = {f"/data/{number}.jpg": "broken" for number in (1, 2)}
    records.bad_images(2, named)
    assert listed.read_text() == "/data/1.jpg: broken\n/data/2.jpg: broken\n"
    records.bad_images(1_236_567, named)
    assert listed.read_text().splitlines()[2:] == ["... and 1,236,565 more"]
    records.close()
    assert [event["count"] for event in read_events(tmp_path)] == [2, 1_236_567]
    assert "passed over so far: 1236567: /data/1.jpg (broken)" in capsys.readouterr().out


def test_the_list_of_bad_images_goes_on_with_the_run(tmp_path, monkeypatch):
    """Bounded, each image once; a new run in the folder begins anew."""
    monkeypatch.setattr("hvd_utils.run.run_log.LISTED", 3)
    listed, settings = tmp_path / BAD_IMAGES, Settings(recipe="test", workers=1)
    for step, numbers, more in ((0, (5, 2), 0), (2, (2, 3), 0), (4, (1, 2), 1), (6, (2,), 1)):
        records = Records(tmp_path, settings, Progress(step=step), last_step=9)
        records.bad_images(len(numbers), {f"/data/{number}.jpg": "broken" for number in numbers})
        records.close()
        lines = listed.read_text().splitlines()
        expected = [n for n in (2, 3, 5) if step or n != 3]
        assert lines[: len(expected)] == [f"/data/{n}.jpg: broken" for n in expected]
        assert lines[len(expected) :] == [f"... and {more} more"] * bool(more)
    Records(tmp_path, settings, Progress(step=0), last_step=9).close()
    assert not listed.exists()


def test_an_odd_name_in_the_list_of_bad_images_is_one_line(tmp_path):
    """In each launch, so that it is counted once."""
    named = {"a\nb.jpg": "broken", "c\u2028d.jpg": "broken", "e\rf.jpg": "broken"}
    for _ in range(2):
        list_bad_images(tmp_path / BAD_IMAGES, 3, named)
    listed = (tmp_path / BAD_IMAGES).read_text().split("\n")
    assert listed == ["a\\nb.jpg: broken", "c\u2028d.jpg: broken", "e\\rf.jpg: broken", ""]


def test_cuda_graphs_that_were_given_up_are_told_once_for_each_more(tmp_path, monkeypatch, capsys):
    """PyTorch counts them and says nothing."""
    from torch._dynamo.utils import counters

    settings = Settings(recipe="test", workers=1, compile="cudagraphs")
    records = Records(tmp_path, settings, Progress(step=2), last_step=9)
    for skips in (0, 3, 3, 4):
        monkeypatch.setitem(counters["inductor"], "cudagraph_skips", skips)
        records.window(window(2))
    records.close()
    told = [e["count"] for e in read_events(tmp_path) if e["event"] == "cudagraph_skips"]
    assert told == [3, 4]
    assert capsys.readouterr().out.count("CUDA graphs by step 2") == 2
