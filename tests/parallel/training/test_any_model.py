"""The job with networks of timm and torchvision, on real ranks."""

from __future__ import annotations

import pytest
import timm
import torch
from support.launching import TINY, train

from hvd_utils.inspect.compare import differences, newest
from hvd_utils.weights.trained import read_trained

OPTIONS = (
    *("--workers", "3", "--precision", "fp64", *TINY),
    *("--epochs", "1", "--resolution", "64", "--val-resize", "64"),
)


@pytest.mark.parametrize(
    ("name", "fuse"),
    [
        ("timm/test_byobnet", 3),
        pytest.param("mobilenet_v3_small", 1, marks=pytest.mark.long),  # has dropout
    ],
)
def test_one_and_two_processes_train_the_same_network(tiny_data, tmp_path, name, fuse):
    ends = []
    for by, ranks in (("python", 1), ("mpi", 2)):
        run = tmp_path / str(ranks)
        options = ("--data", tiny_data, "--output", run, "--model", name, "--fuse-workers", fuse)
        ended = train(*OPTIONS, *options, by=by, ranks=ranks)
        assert ended.code == 0, ended.output
        ends.append(newest(run))
    assert max(differences(*ends).values()) < 1e-10
    if name.startswith("timm/"):
        theirs = timm.create_model(name.removeprefix("timm/"), num_classes=3)
        trained = read_trained(tmp_path / "1")
        theirs.load_state_dict(trained.weights, strict=True)
        images = torch.randn(2, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(theirs.eval()(images), trained.model()(images))
