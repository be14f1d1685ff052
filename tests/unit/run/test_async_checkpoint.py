"""Checkpoints are written beside training, from a copy, and nothing about them is hidden."""

import threading
from collections import OrderedDict

import pytest
import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.run import async_checkpoint as saver_module
from hvd_utils.run.async_checkpoint import AsyncCheckpointer, host_copy
from hvd_utils.run.checkpoint import (
    best_path,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


class Log:
    """Keeps what is said and recorded, and refuses other threads, as a real log would suffer."""

    def __init__(self):
        self.lines, self.events = [], []
        self._thread = threading.get_ident()

    def print_line(self, text):
        assert threading.get_ident() == self._thread
        self.lines.append(text)

    def record(self, event, **values):
        assert threading.get_ident() == self._thread
        self.events.append({"event": event, **values})


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def saver(tmp_path, log):
    return AsyncCheckpointer(tmp_path, 2, log.print_line, log.record)


@pytest.fixture
def disk(monkeypatch):
    """An event without which no checkpoint gets written."""
    ready = threading.Event()

    def waits(*arguments, **options):
        assert ready.wait(30)
        return save_checkpoint(*arguments, **options)

    monkeypatch.setattr(saver_module, "save_checkpoint", waits)
    yield ready
    ready.set()


def state(step, errors=()):
    return {
        "step": step,
        "progress": {"step": step, "top1_errors": list(errors)},
        "model": {"w": torch.full((1000,), float(step))},
    }


def test_training_goes_on_and_changes_its_state_while_the_copy_is_written(
    tmp_path, log, saver, disk
):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step():
        model(torch.randn(4, 2)).square().sum().backward()
        optimizer.step()

    step()
    kept = [tensor.clone() for tensor in model.state_dict().values()]
    momenta = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    saver.save({"step": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
    saver.check()
    assert not list_checkpoints(tmp_path)
    assert not log.events
    step()
    optimizer.param_groups[0]["lr"] = 7.0
    disk.set()
    saver.finish()

    loaded = load_checkpoint(checkpoint_path(tmp_path, 1))
    for name, before in zip(model.state_dict(), kept, strict=True):
        assert torch.equal(loaded["model"][name], before)
    for index, before in enumerate(momenta):
        assert torch.equal(loaded["optimizer"]["state"][index]["momentum_buffer"], before)
    assert loaded["optimizer"]["param_groups"][0]["lr"] == 0.1
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])


def test_a_copy_shares_nothing_and_keeps_kinds_and_attributes():
    whole = torch.arange(6.0).reshape(2, 3).t()
    given = OrderedDict(a=whole[1], b=[(whole, 1), {"c": [2.0]}])
    given._metadata = {"version": 2}
    copied = host_copy(given)
    whole.zero_()
    given["b"][1]["c"][0] = 9
    assert type(copied) is OrderedDict
    assert copied._metadata == {"version": 2}
    assert copied["a"].tolist() == [1, 4]
    assert copied["b"][0][0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert isinstance(copied["b"][0], tuple)
    assert copied["b"][1] == {"c": [2.0]}
    assert copied["a"].untyped_storage().nbytes() == 8  # not all that it was a part of


@pytest.mark.gpu
def test_a_copy_is_on_the_cpu():
    assert host_copy({"w": torch.ones(3, device="cuda")})["w"].device.type == "cpu"


def test_an_event_tells_what_a_checkpoint_cost(tmp_path, log, saver):
    saver.save(state(1))
    saver.finish()
    (event,) = log.events
    assert event["event"] == "checkpoint"
    assert event["step"] == 1
    assert event["bytes"] == checkpoint_path(tmp_path, 1).stat().st_size
    assert event["write_seconds"] > 0
    assert event["stalled_seconds"] > 0
    saver.finish()
    assert len(log.events) == 1
    assert not log.lines


def test_a_write_that_ended_is_reported_at_the_next_check(log, saver):
    saver.save(state(1))
    for _ in range(3000):
        saver.check()
        if log.events:
            break
        threading.Event().wait(0.01)
    assert [event["step"] for event in log.events] == [1]


def test_waiting_for_the_write_before_is_shown_and_counted(tmp_path, log, saver, disk):
    saver.save(state(1))
    threading.Timer(0.8, disk.set).start()
    saver.save(state(2))
    (line,) = log.lines
    assert line.startswith("the disk is slow: step 2 waited ")
    assert line.endswith(f" s for checkpoint {checkpoint_path(tmp_path, 1)}")
    assert [event["step"] for event in log.events] == [1]
    saver.finish()
    assert log.events[1]["stalled_seconds"] > 0.5
    assert [load_checkpoint(path)["step"] for path in list_checkpoints(tmp_path)] == [2, 1]


def test_the_newest_few_and_the_best_are_kept(tmp_path, saver):
    for step in range(1, 6):
        saver.save(state(step), best=step == 2)
    saver.finish()
    assert [load_checkpoint(path)["step"] for path in list_checkpoints(tmp_path)] == [5, 4]
    assert load_checkpoint(best_path(tmp_path))["step"] == 2


def test_the_same_step_is_written_once_but_may_become_the_best(tmp_path, log, saver):
    saver.save(state(1))
    saver.save(state(1))
    saver.finish()
    assert not best_path(tmp_path).exists()
    saver.save(state(1), best=True)
    saver.finish()
    assert best_path(tmp_path).samefile(checkpoint_path(tmp_path, 1))
    assert len(log.events) == 1


def test_the_same_step_with_its_epochs_errors_is_written_anew(tmp_path, saver):
    saver.save(state(1))
    saver.save(state(1, errors=[50.0]))
    saver.finish()
    assert load_checkpoint(checkpoint_path(tmp_path, 1))["progress"]["top1_errors"] == [50.0]


def check_until_it_raises(saver):
    for _ in range(3000):
        saver.check()
        threading.Event().wait(0.01)


@pytest.mark.parametrize(
    "notice", [check_until_it_raises, AsyncCheckpointer.finish, lambda saver: saver.save(state(3))]
)
def test_a_write_that_failed_ends_training_and_names_what_is_intact(tmp_path, saver, notice):
    saver.save(state(1))
    saver.finish()
    checkpoint_path(tmp_path, 2).with_suffix(".tmp").mkdir()  # cannot be opened as a file
    saver.save(state(2))
    with pytest.raises(BadInput, match="cannot save .*00000002.*intact: .*00000001.pt"):
        notice(saver)


def test_a_full_disk_is_named(small_disk, log):
    """Room for one checkpoint of 0.8 MB and not for two, even for a moment."""
    disk = small_disk("1100k")
    saver = AsyncCheckpointer(disk, 1, log.print_line, log.record)
    saver.save({"step": 1, "w": torch.zeros(200_000)}, best=True)
    saver.save({"step": 2, "w": torch.zeros(200_000)})
    with pytest.raises(BadInput, match="00000002.*No space left.*intact: .*00000001.pt"):
        saver.finish()
    assert load_checkpoint(list_checkpoints(disk)[0])["step"] == 1
    assert load_checkpoint(best_path(disk))["step"] == 1
    assert not list(disk.glob("checkpoints/*.tmp"))
