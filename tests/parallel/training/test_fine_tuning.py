"""Fine-tuning is one trajectory too: other weights to start from, frozen parts, a quicker head."""

from __future__ import annotations

import pytest
import torch
from support.checkpoints import some_model, write_checkpoint
from support.endings import assert_one_clear_line
from support.launching import TINY, train

from hvd_utils.inspect.compare import differences, newest

OPTIONS = (
    *("--workers", "3", "--precision", "fp64", "--average", "ema", "--head-rate", "5"),
    *("--freeze", "stem,stages.0", *TINY),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Weights of a network with four classes, not three."""
    model = some_model("resnet8", 4)
    return write_checkpoint(tmp_path_factory.mktemp("published"), model, "abcd", model="resnet8")


def test_one_trajectory_stopped_and_resumed_on_other_processes(published, tiny_data, tmp_path):
    """k = 3 on one process; on three, stopped after two steps, then on two."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = (*OPTIONS, "--data", tiny_data, "--init", published)
    ended = train(*options, "--output", whole, by="python")
    assert ended.code == 0, ended.output
    told = f"init: 54 tensors from {published} (sha256:"
    assert ended.output.count(told) == 1
    new = "; new: fc.weight (there 4×64, here 3×64), fc.bias (there 4, here 3)\n"
    assert new in ended.output

    ended = train(*options, "--output", parts, "--max-steps", 2, ranks=3)
    assert ended.code == 0, ended.output
    assert newest(parts)["step"] == 2
    ended = train(*options, "--output", parts, ranks=2)
    assert ended.code == 0, ended.output
    assert ended.output.count(told) == 1

    one, other = newest(whole), newest(parts)
    assert one["step"] == 5
    assert max(differences(other, one).values()) < 1e-10
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
