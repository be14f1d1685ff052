"""Who differs from rank 0 in what must be equal, and how it is told."""

import pytest

from hvd_utils.cli.errors import BadInput
from hvd_utils.config.command_line import load_settings
from hvd_utils.config.settings import Settings
from hvd_utils.horovod_backend import consistency
from hvd_utils.horovod_backend.consistency import OWN, require_equal, shared_facts


def test_equal_ranks_pass():
    require_equal([("a", {"--seed": 1})] * 3, 0)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_every_rank_is_told_who_differs_and_how(rank):
    facts = {"--seed": 1, "torch": "2.15"}
    everywhere = [("a", facts), ("a", facts), ("b", facts | {"--seed": 2}), ("b", {"--seed": 1})]
    with pytest.raises(BadInput) as refused:
        require_equal(everywhere, rank)
    assert str(refused.value).startswith(
        "rank 2 (b), rank 3 (b) have not what rank 0 (a) has: on rank 2 --seed is 2, on rank 0 1: "
    )


def test_in_an_elastic_launch_those_who_differ_leave_and_the_others_go_on(monkeypatch):
    monkeypatch.setenv("HOROVOD_ELASTIC", "1")
    everywhere = [("a", {"--seed": 1}), ("b", {"--seed": 2})]
    require_equal(everywhere, 0)
    with pytest.raises(BadInput, match=r"rank 1 \(b\) has not what"):
        require_equal(everywhere, 1)


def test_every_setting_of_the_experiment_must_be_equal():
    settings = load_settings(["--recipe", "demo"], {})
    shared = shared_facts(settings)
    assert {f"--{name.replace('_', '-')}" for name in settings.experiment()} <= shared.keys()
    assert Settings.model_fields.keys() >= OWN
    assert shared["code"] == consistency.code_hash(consistency.ROOT, consistency.CODE)
    assert shared["torch"]
    assert shared["numpy"]
    assert shared["horovod"].startswith("0.28.1")
