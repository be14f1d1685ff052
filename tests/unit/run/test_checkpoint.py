"""Checkpoints: whole or not there, found again, refused when they do not fit."""

import errno
import os
import pickle
import signal

import pytest
import torch
from support.launching import launch

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import Recipe
from hvd_utils.run import checkpoint
from hvd_utils.run.checkpoint import (
    best_path,
    check_data,
    check_experiment,
    check_model,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    mark_best,
    newest_valid,
    save_checkpoint,
)


def state(step):
    return {
        "step": step,
        "experiment": {"model": "resnet8", "seed": 1, "epochs": 3},
        "num_classes": 10,
        "train_images": 100,
        "train_digest": "ab",
        "order": 2,
        "model": {"w": torch.full((1000,), float(step))},
    }


def test_what_is_saved_is_loaded_and_the_newest_is_found(tmp_path):
    for step in (5, 100, 20):
        save_checkpoint(tmp_path, state(step), keep=0)
    path, loaded, damaged = newest_valid(tmp_path)
    assert (path, loaded["step"], damaged) == (checkpoint_path(tmp_path, 100), 100, [])
    assert (loaded["model"]["w"] == 100).all()


def test_the_newest_few_are_kept(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert [int(path.stem[-8:]) for path in list_checkpoints(tmp_path)] == [5, 4]


def test_the_one_just_written_is_kept_even_if_others_have_higher_numbers(tmp_path):
    for step in (100, 200, 300, 40):
        save_checkpoint(tmp_path, state(step), keep=2)
    assert [int(path.stem[-8:]) for path in list_checkpoints(tmp_path)] == [300, 40]


@pytest.mark.parametrize("links", [True, False])
def test_the_best_one_outlives_the_newest_few(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(checkpoint.os, "link", refuse)
    for step in range(1, 7):
        save_checkpoint(tmp_path, state(step), keep=2, best=step in (2, 3))
    assert load_checkpoint(best_path(tmp_path))["step"] == 3
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "checkpoint-00000006.pt",
        "checkpoint-00000005.pt",
    ]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_a_kill_between_both_names_leaves_the_epoch_to_be_made_again(tmp_path, monkeypatch):
    """Were it counted, it would never be marked as the best."""
    replace = os.replace

    def killed(source, target):
        if str(target).endswith("00000002.pt"):
            raise KeyboardInterrupt
        replace(source, target)

    save_checkpoint(tmp_path, state(1), keep=2, best=True)
    monkeypatch.setattr(checkpoint.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, state(2), keep=2, best=True)
    assert load_checkpoint(best_path(tmp_path))["step"] == 2
    assert newest_valid(tmp_path)[1]["step"] == 1


def test_the_best_one_takes_no_room_of_its_own(tmp_path):
    path = save_checkpoint(tmp_path, state(1), keep=1, best=True)
    assert best_path(tmp_path).samefile(path)


def test_marking_the_same_one_again_leaves_nothing_behind(tmp_path):
    save_checkpoint(tmp_path, state(1), keep=1, best=True)
    mark_best(tmp_path, 1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "best.pt",
        "checkpoint-00000001.pt",
    ]


def test_the_best_one_is_not_taken_for_the_newest(tmp_path):
    newest = save_checkpoint(tmp_path, state(1), keep=1, best=True)
    best_path(tmp_path).unlink()
    save_checkpoint(tmp_path, state(9), keep=1).rename(best_path(tmp_path))
    save_checkpoint(tmp_path, state(1), keep=1)
    assert newest_valid(tmp_path)[0] == newest
    best_path(tmp_path).write_bytes(b"damaged")
    assert newest_valid(tmp_path)[2] == []
    with pytest.raises(BadInput, match="best.pt is damaged"):
        load_checkpoint(best_path(tmp_path))


def test_marking_one_that_is_gone_says_so_and_keeps_the_best_before(tmp_path):
    save_checkpoint(tmp_path, state(1), keep=1, best=True)
    with pytest.raises(BadInput, match="cannot save .*best.pt: No such file"):
        mark_best(tmp_path, 7)
    assert load_checkpoint(best_path(tmp_path))["step"] == 1


def test_what_a_killed_writer_left_is_removed_at_the_next_save(tmp_path):
    program = f"""
import os, signal
import torch
from pathlib import Path
from hvd_utils.run import checkpoint
whole = os.fsync
def die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
output = Path({str(tmp_path)!r})
weights = torch.zeros(1000)
checkpoint.save_checkpoint(output, {{"step": 1, "model": weights}}, keep=1)
os.fsync = die
checkpoint.save_checkpoint(output, {{"step": 2, "model": weights}}, keep=1)
"""
    ended = launch(["-c", program], by="python")
    assert ended.code == -signal.SIGKILL, ended.output
    (left,) = tmp_path.glob("checkpoints/*.tmp")
    assert newest_valid(tmp_path)[1]["step"] == 1
    save_checkpoint(tmp_path, state(3), keep=0)
    assert not left.exists()
    assert [int(path.stem[-8:]) for path in list_checkpoints(tmp_path)] == [3, 1]


def test_a_first_run_has_none(tmp_path):
    assert newest_valid(tmp_path) == (None, None, [])


def test_a_truncated_one_is_passed_over_and_named(tmp_path):
    good, bad = (save_checkpoint(tmp_path, state(step), keep=0) for step in (1, 2))
    bad.write_bytes(bad.read_bytes()[:-100])
    path, loaded, damaged = newest_valid(tmp_path)
    assert (path, loaded["step"], damaged) == (good, 1, [bad])


def test_if_all_are_damaged_the_run_does_not_start_over_by_itself(tmp_path):
    bad = save_checkpoint(tmp_path, state(1), keep=0)
    bad.write_bytes(b"")
    with pytest.raises(BadInput, match="every checkpoint.*damaged"):
        newest_valid(tmp_path)


@pytest.mark.parametrize("place", [200, 0.5, -300])
def test_flipped_bits_are_noticed(tmp_path, place):
    path = save_checkpoint(tmp_path, state(1), keep=0)
    content = bytearray(path.read_bytes())
    at = int(len(content) * place) if isinstance(place, float) else place
    for offset in range(40):
        content[at + offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadInput, match="damaged|not a checkpoint"):
        load_checkpoint(path)


def test_an_interrupted_write_leaves_the_earlier_checkpoint_the_newest(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, state(1), keep=1)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, state(2), keep=1)
    assert newest_valid(tmp_path)[1]["step"] == 1


def test_pickled_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "bad.pt"
    torch.save({"format": 1, "step": Attack()}, path)
    with pytest.raises(BadInput):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(BadInput):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match="not a checkpoint of this program"):
        load_checkpoint(path)
    with pytest.raises(BadInput, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pt")


def test_another_model_or_experiment_is_refused_with_both_values(tmp_path):
    path = tmp_path / "c.pt"
    check_model(state(1), path, "resnet8", 10)
    with pytest.raises(BadInput, match="resnet8 with 10 classes.*resnet50 with 10"):
        check_model(state(1), path, "resnet50", 10)
    check_experiment(state(1), path, {"model": "resnet8", "seed": 1, "epochs": 9})
    with pytest.raises(BadInput, match="--seed was 1, now 2"):
        check_experiment(state(1), path, {"model": "resnet8", "seed": 2, "epochs": 3})


def test_other_images_or_another_order_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    facts = {"num_classes": 10, "train_images": 100, "train_digest": "ab", "order": 2}
    check_data(state(1), path, facts)
    with pytest.raises(BadInput, match="100 images, --data now has 99"):
        check_data(state(1), path, {**facts, "train_images": 99})
    with pytest.raises(BadInput, match="100 other images or labels"):
        check_data(state(1), path, {**facts, "train_digest": "cd"})
    with pytest.raises(BadInput, match="those of --data are cut otherwise: set --data back"):
        check_data(state(1), path, {**facts, "shards": "ef"})
    with pytest.raises(BadInput, match="shuffles by version 2, this program by version 3"):
        check_data(state(1), path, {**facts, "order": 3})
    before = {name: value for name, value in state(1).items() if name != "order"}
    with pytest.raises(BadInput, match="shuffles by version 1, this program by version 2"):
        check_data(before, path, facts)


def test_the_length_of_a_run_may_not_change_where_the_rate_depends_on_it(tmp_path):
    path, settings = tmp_path / "c.pt", {"model": "resnet8", "seed": 1, "decay": "cosine"}
    saved = {**state(1), "experiment": {**settings, "epochs": 3}}
    check_experiment(saved, path, {**settings, "epochs": 3})
    with pytest.raises(BadInput, match="--epochs was 3, now 4"):
        check_experiment(saved, path, {**settings, "epochs": 4})


def test_a_checkpoint_from_before_a_setting_is_of_its_default(tmp_path):
    changed = {"model": "resnet8", "epochs": 3, "order": "stored"}  # the order alone has another
    now = Recipe().model_dump(mode="json") | changed
    check_experiment(state(1), tmp_path, now)
    with pytest.raises(BadInput, match="--optimizer was sgd, now lars"):
        check_experiment(state(1), tmp_path, {**now, "optimizer": "lars"})


def test_a_write_that_fails_says_what_is_still_there(tmp_path):
    save_checkpoint(tmp_path, state(1), keep=0)
    blocked = checkpoint_path(tmp_path, 2).with_suffix(".tmp")
    blocked.mkdir()  # the temporary file cannot be opened
    with pytest.raises(BadInput, match="cannot save .*00000002.*intact: .*00000001.pt"):
        save_checkpoint(tmp_path, state(2), keep=0)
