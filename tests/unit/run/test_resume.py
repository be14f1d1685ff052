"""From which checkpoint a launch goes on, for each form of --resume, launch after launch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.recipe import Recipe
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend.world import World
from hvd_utils.run import resume
from hvd_utils.run.checkpoint import checkpoint_path, list_checkpoints, save_checkpoint
from hvd_utils.run.resume import find_state, named_checkpoint

WORLD = World(0, 1, 0, 1, "here", torch.device("cpu"), 1)
FACTS = {"num_classes": 10, "train_images": 100, "train_digest": "ab", "order": 2}


def save(output, *steps, keep=0, spared=None):
    for step in steps:
        experiment = Recipe(model="resnet8").model_dump(mode="json")
        state = {"step": step, "experiment": experiment, "model": {}, **FACTS}
        save_checkpoint(output, state, keep=keep, spared=spared)


def launch(output, choice):
    """Return the step from which a launch goes on, None at the beginning, and what it shows."""
    settings = Settings(recipe="demo", model="resnet8", resume=str(choice))
    state, notes = find_state(settings, WORLD, output, FACTS)
    return state and state["step"], " ".join(notes)


def test_without_a_choice_the_newest_is_taken(tmp_path):
    assert launch(tmp_path, "auto") == (None, "")
    save(tmp_path, 10, 20)
    assert launch(tmp_path, "auto")[0] == 20


def test_a_file_of_another_run_is_where_a_run_begins_and_not_where_it_goes_on(tmp_path):
    """As of a job whose command has --resume FILE and that its scheduler starts again."""
    other, output = tmp_path / "other", tmp_path / "run"
    output.mkdir()
    save(other, 30)
    file = checkpoint_path(other, 30)
    assert launch(output, file)[0] == 30
    assert launch(output, file)[0] == 30  # nothing was saved yet
    save(output, 40, 50)
    step, shown = launch(output, file)
    assert step == 50
    assert f"{file} is where this run began" in shown
    file.unlink()  # it is not needed any more
    assert launch(output, file)[0] == 50
    (output / resume.BEGUN_FROM).unlink()
    save(other, 30)
    with pytest.raises(BadInput, match="already holds a run, which --resume .* would break off"):
        launch(output, file)


def test_a_run_can_go_back_to_one_of_its_own_and_on_from_there(tmp_path):
    save(tmp_path, 30, 45, 50)
    file = checkpoint_path(tmp_path, 30)
    step, shown = launch(tmp_path, file)
    assert step == 30
    assert "checkpoint-00000050.pt.set-aside" in shown
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000030.pt"]
    assert len(list((tmp_path / "checkpoints").glob("*.set-aside"))) == 2  # nothing is lost
    spared = named_checkpoint(str(file), tmp_path)
    save(tmp_path, 35, 40, keep=1, spared=spared)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "checkpoint-00000040.pt",
        "checkpoint-00000030.pt",  # however few are kept
    ]
    assert launch(tmp_path, file)[0] == 40
    assert launch(tmp_path, "auto")[0] == 40


def test_a_checkpoint_that_does_not_fit_sets_nothing_aside(tmp_path):
    save(tmp_path, 30, 45)
    settings = Settings(
        recipe="demo", model="resnet8", seed=2, resume=str(checkpoint_path(tmp_path, 30))
    )
    with pytest.raises(BadInput, match="--seed was 1, now 2"):
        find_state(settings, WORLD, tmp_path, FACTS)
    assert len(list_checkpoints(tmp_path)) == 2
    assert not (tmp_path / resume.BEGUN_FROM).exists()


@pytest.mark.parametrize("form", ["relative", "link", "best"])
def test_one_of_the_runs_own_is_known_by_any_name(tmp_path, monkeypatch, form):
    save(tmp_path, 30)
    save_checkpoint(tmp_path, {"step": 40}, keep=0, best=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "checkpoints")
    name = {
        "relative": "checkpoints/checkpoint-00000030.pt",
        "link": "link/checkpoint-00000030.pt",
        "best": "checkpoints/best.pt",
    }[form]
    assert named_checkpoint(name, tmp_path).parent == tmp_path / "checkpoints"


def test_never_refuses_a_run_that_is_there(tmp_path):
    assert launch(tmp_path, "never")[0] is None
    save(tmp_path, 30)
    with pytest.raises(BadInput, match="already holds a run"):
        launch(tmp_path, "never")


def order_of(output, **changes):
    settings = Settings(recipe="demo", model="resnet8", output=output, **changes)
    return resume.as_begun(settings, WORLD, None).order


def test_a_run_that_goes_on_keeps_the_order_of_its_checkpoint(tmp_path):
    """Without a word of the user; from before there was a choice, every order was stored."""
    old, new = tmp_path / "old", tmp_path / "new"
    save(new, 10)
    before = Recipe(model="resnet8").model_dump(mode="json", exclude={"order"})
    save_checkpoint(old, {"step": 30, "experiment": before, "model": {}, **FACTS}, keep=0)
    assert order_of(tmp_path / "nothing yet") == order_of(None) == "computed"
    assert order_of(new) == "computed"
    assert order_of(old) == "stored"
    file = str(checkpoint_path(old, 30))
    assert order_of(tmp_path / "begun from it", resume=file) == "stored"
    assert order_of(old, resume="never") == "computed"  # which is refused later
    elastic = resume.as_begun(Settings(recipe="demo"), WORLD, {"experiment": before})
    assert elastic.order == "stored"


def test_a_run_that_goes_on_keeps_its_workers(tmp_path):
    """Begun on 2 processes without --workers, it goes on on 1."""
    experiment = Recipe(model="resnet8").model_dump(mode="json") | {"workers": 2}
    save_checkpoint(tmp_path, {"step": 10, "experiment": experiment, **FACTS}, keep=0)
    settings = Settings(recipe="demo", model="resnet8", output=tmp_path)
    assert resume.as_begun(settings, WORLD, None).with_workers(1).workers == 2
    own = settings.model_copy(update={"workers": 4})  # which is refused later
    assert resume.as_begun(own, WORLD, None).with_workers(1).workers == 4
    elastic = resume.as_begun(Settings(recipe="demo"), WORLD, {"experiment": experiment})
    assert elastic.workers == 2
    more = replace(WORLD, size=3)
    with pytest.raises(BadInput, match="begun with 2 workers, which 3 processes cannot share"):
        resume.as_begun(settings, more, {"experiment": experiment})


def test_an_order_that_the_user_sets_is_not_replaced_but_refused(tmp_path):
    before = Recipe(model="resnet8").model_dump(mode="json", exclude={"order"})
    save_checkpoint(tmp_path, {"step": 30, "experiment": before, "model": {}, **FACTS}, keep=0)
    assert order_of(tmp_path, order="computed") == "computed"
    settings = Settings(recipe="demo", model="resnet8", order="computed")
    with pytest.raises(BadInput, match="of another run: --order was stored, now computed"):
        find_state(settings, WORLD, tmp_path, {**FACTS, "order": 3})


def test_a_damaged_checkpoint_is_not_what_tells_the_order(tmp_path):
    before = Recipe(model="resnet8").model_dump(mode="json", exclude={"order"})
    for step in (30, 40):
        saved = {"step": step, "experiment": before, "model": {}, **FACTS}
        save_checkpoint(tmp_path, saved, keep=0)
    checkpoint_path(tmp_path, 40).write_bytes(b"PK")
    assert order_of(tmp_path) == "stored"


def test_a_checkpoint_that_is_not_there_is_told_with_what_to_do(tmp_path):
    with pytest.raises(BadInput, match="no checkpoint nope.pt: give a file .* or leave out --res"):
        launch(tmp_path, "nope.pt")
