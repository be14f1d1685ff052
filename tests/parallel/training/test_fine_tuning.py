"""Fine-tuning is one trajectory too: other weights to start from, frozen parts, a quicker head."""

from __future__ import annotations

import os

import pytest
import torch
from support.checkpoints import some_model, write_checkpoint
from support.endings import assert_one_clear_line
from support.kills import metrics, run_with_kills
from support.launching import TINY, train

from hvd_utils.inspect.compare import differences, newest

SEED = int(os.environ.get("SEED", "0"))  # of the kill
STEPS = 30
OPTIONS = (
    *(*TINY, "--epochs", "90", "--reference-rate", "0.0125", "--reference-minibatch", "8"),
    *("--workers", "3", "--precision", "fp64", "--average", "ema", "--checkpoint-every", "1"),
    *("--freeze", "stem,stages.0", "--head-rate", "5", "--recompute-statistics", "24"),
    *("--mixup", "0.2", "--cutmix", "1", "--erase", "0.1", "--augment", "trivial"),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Weights of a network with four classes, not three."""
    model = some_model("resnet8", 4)
    return write_checkpoint(tmp_path_factory.mktemp("published"), model, "abcd", model="resnet8")


def test_one_trajectory_killed_and_resumed_on_other_processes(published, tiny_data, tmp_path):
    """k = 3 on one process; on three, killed at a random step, then on two."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = (*OPTIONS, "--data", tiny_data, "--init", published)
    ended = train(*options, "--output", whole, "--max-steps", STEPS, by="python")
    assert ended.code == 0, ended.output
    assert ended.output.count(f"init: 54 tensors from {published} (sha256:") == 1
    new = "; new: fc.weight (there 4×64, here 3×64), fc.bias (there 4, here 3)\n"
    assert new in ended.output

    launches = [(3, "mpi"), (2, "mpirun")]
    (kill,) = run_with_kills(options, parts, launches, steps=STEPS, seed=SEED)
    assert kill.ranks == 3

    one, other = newest(whole), newest(parts)
    assert one["step"] == other["step"] == STEPS
    assert max(differences(other, one).values()) < 1e-10
    assert one["progress"]["top1_errors"] == other["progress"]["top1_errors"]
    assert len(metrics(parts)) == len(metrics(whole))
    first = torch.load(published, weights_only=True)["model"]
    for name, value in first.items():
        frozen = name.startswith(("stem", "stages.0"))
        if value.is_floating_point() and not name.startswith("fc"):
            for kind in ("model", "averaged"):
                same = torch.equal(one[kind][name], value.double())
                assert same == frozen, (kind, name)
    assert len(one["optimizer"]["state"]) == sum(
        not name.startswith(("stem", "stages.0"))
        for name, _ in some_model("resnet8", 3).named_parameters()
    )


def test_other_weights_are_refused_when_a_run_goes_on(published, tiny_data, tmp_path):
    run, options = tmp_path / "run", (*TINY, "--data", tiny_data, "--max-steps", "1")
    options += ("--workers", "2")
    assert train(*options, "--output", run, "--init", published, by="python").code == 0
    others = write_checkpoint(tmp_path, some_model("resnet8", 4, seed=2), "abcd", model="resnet8")
    ended = train(*options, "--output", run, "--init", others, ranks=2)
    assert_one_clear_line(ended, "is of another run", "--init was sha256:", ", now sha256:")
    assert ended.code == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--init", "/none.pth"], ["no weights /none.pth", "timm/NAME"]),
        (["--freeze", "stem,layer9"], ["--freeze layer9 matches nothing", "stem, stages, pool"]),
        (["--init", "timm/resnet18.a1_in1k"], ["cannot get the weights timm/resnet18.a1_in1k"]),
    ],
)
def test_what_cannot_be_started_from_ends_all_ranks(tmp_path, arguments, words):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    ended = train("--output", tmp_path / "run", *arguments, *TINY, ranks=2, **environment)
    assert_one_clear_line(ended, *words)
    assert ended.code == 2
