"""Settings: what wins, what is refused, and in which words."""

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.cli.ranks import (
    LOCAL_RANK_VARIABLES,
    RANK_VARIABLES,
    launched_local_rank,
    launched_rank,
)
from hvd_utils.config.command_line import RECIPES, known_recipes, load_settings
from hvd_utils.config.settings import Settings


def load(*arguments, **environment):
    return load_settings(arguments, environment)


def test_the_defaults_are_the_papers():
    """The recipe file says nothing else than the defaults, so both state the paper's recipe."""
    from_file = load("--recipe", "paper", "--data", "x")
    assert from_file == Settings(recipe="paper", data="x")
    assert from_file.epochs == 90
    assert from_file.decay_epochs == (30, 60, 80)
    assert (from_file.batch_per_worker, from_file.momentum, from_file.weight_decay) == (
        32,
        0.9,
        1e-4,
    )


def test_the_recipe_follows_the_data():
    assert load().recipe == "demo"
    assert load().data == "digits"
    assert load("--data", "/imagenet").recipe == "paper"
    assert load(IMAGENET_DIR="/imagenet").recipe == "paper"
    assert load(IMAGENET_DIR="/imagenet").data == "/imagenet"
    assert load("--recipe", "demo", IMAGENET_DIR="/imagenet").data == "digits"
    assert load("--data", "/mine", IMAGENET_DIR="/imagenet").data == "/mine"


def test_the_command_line_overrides_the_recipe_and_the_recipe_the_defaults(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("epochs: 7\nbatch-per-worker: 8\ndecay_epochs: [2, 4.5]\nflip: false\n")
    settings = load("--recipe", str(recipe), "--epochs", "9")
    assert (settings.epochs, settings.batch_per_worker, settings.momentum) == (9, 8, 0.9)
    assert settings.decay_epochs == (2, 4.5)
    assert settings.flip is False
    assert load("--recipe", str(recipe), "--flip").flip is True


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_loads_and_opens_with_its_command_and_expected_result(name):
    load("--recipe", name)
    opening = (RECIPES / f"{name}.yaml").read_text().split("\n\n")[0]
    assert "train_imagenet.py" in opening
    assert "Expected:" in opening


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], ["--epochs 0", "greater than 0"]),
        (["--epochs", "-1"], ["--epochs -1"]),
        (["--epochs", "many"], ["--epochs many: takes a whole number ("]),
        (["--batch-per-worker", "0"], ["--batch-per-worker 0"]),
        (["--reference-rate", "0"], ["--reference-rate 0"]),
        (["--reference-rate", "-0.1"], ["--reference-rate -0.1"]),
        (["--reference-rate", "nan"], ["--reference-rate nan", "finite"]),
        (["--average", "swa"], ["--average swa", "ema"]),
        (["--average", "ema", "--average-decay", "1"], ["--average-decay 1", "less than 1"]),
        (["--average", "ema", "--average-decay", "0"], ["--average-decay 0", "greater than 0"]),
        (["--workers", "0"], ["--workers 0: must be greater than 0 ("]),
        (["--epochs", "2000000"], ["--epochs 2000000: must be at most 1000000 ("]),
        (["--stall-timeout", "1e9"], ["--stall-timeout 1e9: must be at most 100000000 ("]),
        (["--seed", "-1"], ["--seed -1: must be at least 0 ("]),
        (["--erase", "x"], ["--erase x: takes a number ("]),
        (["--resolution-ramp", "6"], ["--resolution-ramp 6: takes more values"]),
        (["--resolution-ramp", "1,2,3"], ["--resolution-ramp 1,2,3: takes at most 2 values"]),
        (["--max-steps", "0"], ["--max-steps 0"]),
        (["--decay-epochs", "30,x"], ["--decay-epochs x"]),
        (["--decay-epochs", "0"], ["decay epoch", "greater than 0"]),
        (["--loader", "ffcv"], ["--loader ffcv", "dali"]),
        (["--epoch", "3"], ["unknown setting --epoch", "did you mean --epochs"]),
        (["--batchsize=3"], ["unknown setting --batchsize"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--recipe", "resnet"], ["no recipe resnet", "give one of demo, finetune, ", ", study, "]),
        (["--recipe", "papper"], ["no recipe papper", "did you mean paper?"]),
        (["--recipe", "1-no-warmpu"], ["did you mean tables/1-no-warmup?"]),
        (["--momentum", "0"], ["Nesterov", "--no-nesterov"]),
        (["--decay", "linear"], ["--decay linear", "cosine"]),
        (
            ["--decay", "cosine", "--decay-epochs", "30,60"],
            ["--decay-epochs has no effect with --decay cosine", "--decay step"],
        ),
        (["--decay-power", "3"], ["--decay-power has no effect with --decay step"]),
        (["--average-decay", "0.9"], ["no effect with --average none", "--average ema"]),
        (["--trust-coefficient", "0.01"], ["no effect with --optimizer sgd", "--optimizer lars"]),
        (["--optimizer", "lars", "--decay-batch-norm"], ["lars", "leave out --decay-batch-norm"]),
        (["--label-smoothing", "1"], ["--label-smoothing 1", "less than 1"]),
        (["--val-resize", "16"], ["--val-resize", "--resolution"]),
        (["--profile", "110-100"], ["--profile 110-100: takes the first and the last step"]),
        (["--profile", "0-3"], ["--profile 0-3: takes the first and the last step"]),
        (["--profile", "7"], ["--profile 7: takes the first and the last step"]),
        (["--profile", "a-b"], ["--profile a-b: takes the first and the last step"]),
        (["--profile", "1-2", "--profile-ranks", "0,-1"], ["--profile-ranks 0,-1: takes ranks"]),
        (["--profile", "1-2", "--profile-ranks", ""], ["--profile-ranks : takes ranks, from 0"]),
        (["--mixup", "-1"], ["--mixup -1"]),
        (["--erase", "1.5"], ["--erase 1.5"]),
        (["--augment", "auto"], ["--augment auto", "takes one of none, trivial"]),
        (["--cutmix", "1", "--batch-per-worker", "1"], ["--batch-per-worker to 2 or more"]),
        (["--track", "wandb,visdom"], ["--track visdom", "takes one of wandb, mlflow"]),
        (["--profile-ranks", "0,7"], ["--profile-ranks has no effect without --profile"]),
        (["--eval-only", "x.pt", "--track", "wandb"], ["--track has no effect with --eval-only"]),
        (["--eval-only", "x.pt", "--profile", "1-2"], ["--profile has no effect with --eval-only"]),
        (["--eval-only", "x.pt", "--init", "y.pt"], ["--init has no effect with --eval-only"]),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(arguments, words):
    with pytest.raises(BadInput) as caught:
        load(*arguments)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epoch: 3", "unknown setting epoch"),
        ("- 3", "must be lines of the form"),
        ("epochs: [", "is not YAML"),
        ("epochs: 0", "--epochs 0"),
        ("reference_rate: .nan", "--reference-rate nan"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, content, words):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(content)
    with pytest.raises(BadInput, match=words):
        load("--recipe", str(recipe))


def test_a_recipes_decay_epochs_are_no_hindrance_to_another_decay():
    assert load("--recipe", "demo", "--decay", "cosine").decay == "cosine"


def test_workers_default_to_processes_and_may_not_be_fewer():
    assert load().with_workers(3).workers == 3
    assert load("--workers", "8").with_workers(3).workers == 8
    with pytest.raises(BadInput, match="4 processes cannot share --workers 3"):
        load("--workers", "3").with_workers(4)


def test_the_experiment_is_what_determines_the_weights():
    """Where a run writes, reads from or stops may change on resuming; the rest may not."""
    experiment = load("--output", "x", "--max-steps", "3").experiment()
    assert not {"data", "output", "max_steps", "device", "loader", "recipe"} & set(experiment)
    assert {"seed", "reference_rate", "batch_per_worker", "workers", "flip"} <= set(experiment)


def test_help_groups_the_settings_and_shows_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        load("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for group in ("the run", "minibatch (§2.1", "learning rate (§2.1", "optimizer (§5.1)"):
        assert f"\n{group}" in text
    words = " ".join(text.split())
    assert "(default: 90)" in words
    assert "--init WEIGHTS" in words
    assert "--max-steps N stop after so many steps of the run (default: unset)" in words
    assert "none: " not in words  # where it is no value: "none" is one of --compile


def test_only_one_rank_prints_the_help(capsys, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    with pytest.raises(SystemExit):
        load("--help")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("variable", RANK_VARIABLES)
def test_the_rank_is_known_before_horovod_starts(monkeypatch, variable):
    monkeypatch.setenv(variable, "5")
    assert launched_rank() == 5


def test_a_launcher_of_ones_own_in_a_batch_script_tells_the_local_rank(monkeypatch):
    """The script's own variables of Slurm reach all ranks, and say 0."""
    for name in LOCAL_RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert launched_local_rank() is None
    monkeypatch.setenv("SLURM_LOCALID", "0")
    assert launched_local_rank() == 0
    for name in LOCAL_RANK_VARIABLES[:-1]:
        with monkeypatch.context() as launched:
            launched.setenv(name, "3")
            assert launched_local_rank() == 3


@pytest.mark.parametrize("recipe", sorted(known_recipes()))
def test_settings_that_travel_as_json_are_the_same(recipe):
    """As preflight's children are told them."""
    settings = load("--recipe", recipe, "--data", "/images")
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_a_recipe_with_weights_to_start_from_is_evaluated(tmp_path):
    """The checkpoint of its run is."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("init: torchvision/resnet50\n")
    settings = load_settings(["--recipe", str(recipe), "--eval-only", "x.pt"], {})
    assert (settings.init, str(settings.eval_only)) == ("torchvision/resnet50", "x.pt")
