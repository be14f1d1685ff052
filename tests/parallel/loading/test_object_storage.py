"""Training from a web server that fails now and then, or for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.launching import TINY, train
from support.object_store import FaultyServer, packed_jpegs

from hvd_utils.inspect.compare import newest

OPTIONS = (*TINY, "--workers", "2", "--shuffle", "window", "--shuffle-window", "16")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return packed_jpegs(
        tmp_path_factory.mktemp("data"), {"ant": 20, "bee": 21}, {"ant": 5, "bee": 6}
    )


def test_the_trajectory_is_that_of_the_local_folder(data, tmp_path):
    """On 2 processes, with answers that break off, stall and are errors; to the bit."""
    faults = {1: 503, 2: "break", 3: 500}

    def fault(path, number):
        return faults.get(number) if path.endswith(".tar") else {1: 500}.get(number)

    ended = train(*OPTIONS, "--data", data, "--output", tmp_path / "local", ranks=2)
    assert ended.code == 0, ended.output
    with FaultyServer(data, fault) as server:
        remote = ("--data", server.url, "--cache", tmp_path / "cache")
        ended = train(*OPTIONS, *remote, "--output", tmp_path / "remote", ranks=2)
        assert ended.code == 0, ended.output
        assert server.asked["/train.index.npz"] >= 3  # two looks, one failed, and its only part
        assert len([path for path, _ in server.seen if path == "/train.index.npz"]) == 1
    local, remote = (newest(tmp_path / name) for name in ("local", "remote"))
    assert local["step"] == remote["step"] == 10
    for name, weights in local["model"].items():
        assert torch.equal(weights, remote["model"][name]), name


def test_a_storage_that_is_gone_ends_all_ranks_with_one_line(data, tmp_path):
    """``skip`` is for bad images: those that cannot be read now are none."""
    began = []

    def fault(path, number):
        if path.endswith(".tar"):
            began.append(path)
        return "stall" if len(began) > 12 else None

    with FaultyServer(data, fault) as server:
        patience = ("--storage-patience", "2", "--on-bad-image", "skip", "--shuffle", "global")
        where = ("--data", server.url, "--cache", tmp_path / "cache")
        ended = train(*OPTIONS[:-4], *patience, *where, "--output", tmp_path / "run", ranks=2)
    assert ended.code != 0
    assert "no answer in time" in ended.output
    assert "check the address, the network and the server" in ended.output
    assert "Traceback" not in ended.output
